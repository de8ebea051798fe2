"""Edgesmith takes a convolutional network from PyTorch to the edge and proves, at each step, that nothing was lost."""

__version__ = "0.1.0"
