"""Helpers of the tests: commands, small models, servers, kill trials."""
