"""Makes a task folder for a user's data file: detects the roles of the file's columns, and writes a recipe and
templates.
"""
