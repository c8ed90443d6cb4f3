"""How close a student is to its teacher, and what each of them costs: a module for each family of students."""
