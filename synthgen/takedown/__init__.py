"""`remove`: everything that descends from a source is deleted from a run, and generation never makes it again."""
