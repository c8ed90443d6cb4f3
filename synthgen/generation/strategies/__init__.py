"""The generator functions of STRATEGIES. `single` has the strategies of one round, `choosing` the strategies that ask
several times and choose among the replies, and `asking` the strategies that make new questions first.
"""
