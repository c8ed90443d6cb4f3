"""What the commands measured, as their JSON files hold it: evaluations, curves, exports, and the facts of a training.

The page, the cards, notebooks and `distill` all use these classes. They need neither torch nor a model.
"""
