"""The results of commands that are stored in JSON files: trainings, evaluations, curves and exports.

The page, the cards, notebooks and `distill` use these classes. The modules of this package do not import torch, and
load no model.
"""
