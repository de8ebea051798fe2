"""Which artefact on which backend: the order, and what is fastest here."""
