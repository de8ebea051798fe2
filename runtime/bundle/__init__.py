"""A bundle: its manifest, archive, signature, and what it requires of a machine."""
