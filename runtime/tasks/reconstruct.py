"""Reconstruction of an image, as by an autoencoder: the outputs are the answer."""

from ._base import Task

TASK = Task()
