"""One metric per file; its name is the file's."""
