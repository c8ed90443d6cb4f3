"""Tests of a language model's bias: pairs of sentences, and questions with two groups of people.

`pairs` and `bbq` read the test sets, `scores` asks a model, `effects` computes one model's measurements from its
answers, and `compare` compares a student with its teacher and with itself before training.
"""
