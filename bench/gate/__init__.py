"""Comparison of two measurements: faster, slower, same, or cannot tell."""
