"""Makes a task folder for a user's own file: detects the roles of its columns and writes a recipe and templates."""
