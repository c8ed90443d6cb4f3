"""Generation: makes requests from seeds, asks the teachers, and makes the rows of RUN/generated from their replies."""
