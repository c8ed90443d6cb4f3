"""A task's folder for one's own file: which columns are what, and the recipe and templates that follow."""
