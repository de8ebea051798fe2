"""Backends execute a graph on a device; one file each, its name is the file's."""
