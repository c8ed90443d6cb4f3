"""What a student learns from: stored or live distributions, several teachers, hidden states, rationales, tokens."""
