"""`remove` deletes everything in a run that descends from a source. Generation never makes the deleted rows again."""
