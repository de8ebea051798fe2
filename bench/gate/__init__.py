"""Judging two measurements: faster, slower, the same, or cannot tell."""
