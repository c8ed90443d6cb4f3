"""The results of commands as stored in JSON files: evaluations, curves, exports, and the facts of a training.

The page, the cards, notebooks and `distill` all use these classes. They import neither torch nor a model.
"""
