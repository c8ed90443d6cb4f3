"""Reads training data as a stream. See `distill.streaming.stream`."""
