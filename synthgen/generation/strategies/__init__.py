"""The generator functions of STRATEGIES. `single` has strategies of one round, `choosing` has strategies that ask
several times and keep the best, and `asking` has strategies that make new questions first.
"""
