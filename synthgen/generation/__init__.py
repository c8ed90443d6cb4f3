"""Generation: makes requests from seeds, sends them to teachers, and writes the replies as rows of RUN/generated."""
