"""Measures how close a student is to its teacher, and the cost of both. Each family of students has its own module."""
