"""The generator functions of the strategies in the table STRATEGIES. The module `single` has the strategies with one
round of requests. `choosing` has the strategies that request several replies and choose among them. `asking` has the
strategies that first make new questions.
"""
