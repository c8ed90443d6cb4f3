"""The kinds of student: how each is built, trained and opened."""
