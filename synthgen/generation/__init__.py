"""Generation: seeds become requests, requests become rows of RUN/generated."""
