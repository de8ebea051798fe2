"""Whatever a network computes; nothing is known of its outputs, not even that an image has one of its own."""

from ._base import Task


class RawFeatures(Task):
    """The outputs as they are."""

    batch_first = False


TASK = RawFeatures()
