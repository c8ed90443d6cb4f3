"""Generation: turns seeds into requests, and replies into rows of RUN/generated."""
