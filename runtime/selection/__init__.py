"""Selection of artefact and backend: by a fixed order, or by measurement on this machine."""
