"""What a student learns from: stored or live distributions, several teachers, other tokenizers, hidden states, rationales."""
