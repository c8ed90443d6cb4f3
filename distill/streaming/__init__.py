"""Training data read as a stream: see `distill.streaming.stream`."""
