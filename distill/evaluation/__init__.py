"""How close a student is to its teacher, and what it costs."""
