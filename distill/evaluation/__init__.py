"""Measures how close a student is to its teacher, and what it costs to run each of them.

Each family of students has its own module.
"""
