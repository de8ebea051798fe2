"""Backends, which execute a graph on a device; one file each, named after the file."""
