"""Measures how close a student is to its teacher, and what it costs to run the student and the teacher.

Each family of students has its own module.
"""
