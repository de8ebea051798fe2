"""Any outputs: nothing is known about them, not even that there is one output per image."""

from ._base import Task


class RawFeatures(Task):
    """The unchanged outputs."""

    batch_first = False


TASK = RawFeatures()
