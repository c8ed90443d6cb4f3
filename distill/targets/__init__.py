"""The targets of students: stored or live distributions, several teachers, hidden states, rationales, tokens."""
