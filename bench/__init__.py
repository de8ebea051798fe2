"""Measure latency, memory, size and accuracy, and judge whether a new version is slower."""
