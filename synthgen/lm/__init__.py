"""A language model in this process: its files, its weights, its chat template, its forward passes, and sampling."""
