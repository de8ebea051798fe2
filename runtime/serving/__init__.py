"""Streams, reloading, frame sources and Triton."""
