"""Tasks of networks, one file per task: `segment.py` is the task "segment" of a ModelSpec.

A file defines one `TASK`: how outputs are decoded, shown and drawn, how outputs of two networks are compared, and how
outputs are scored against the truth. A new task is one file here.
"""

from __future__ import annotations

import sys

from ..common import plugins
from ._base import CLASS as CLASS
from ._base import DecodeContext as DecodeContext
from ._base import Region as Region
from ._base import Score as Score
from ._base import Task as Task
from ._base import first as first


def names() -> list[str]:
    """List the tasks, sorted."""
    return plugins.plugin_names(sys.modules[__name__])


def find(name: str) -> Task:
    """Return a task by its name.

    Raises:
        UsageError: No such task.
    """
    task: Task = plugins.load_plugin(sys.modules[__name__], name, "task").TASK
    return task


def with_metric() -> list[Task]:
    """List the tasks that have a metric, one for each metric: that of classes first, the others by name."""
    tasks = {task.metric: task for task in map(find, names()) if task.metric}
    return sorted(tasks.values(), key=lambda task: task.truth != CLASS)
