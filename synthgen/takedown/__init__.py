"""`remove` deletes everything in a run that was derived from a source. Generation does not make these rows again."""
