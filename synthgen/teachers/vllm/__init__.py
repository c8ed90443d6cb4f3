"""The vLLM engine as a teacher. vLLM's engine runs in a separate process."""
