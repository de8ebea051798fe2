"""An image again, as an autoencoder gives it: the outputs are the answer."""

from ._base import Task

TASK = Task()
