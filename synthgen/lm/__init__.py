"""A language model in this process: find and load it, render messages, run it, sample from it."""
