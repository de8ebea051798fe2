"""Which head a detector has, guessed from the names and shapes of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Shapes = Mapping[str, tuple["int | None", ...]]

# Words in the names of outputs that are already selected.
WORDS = {"boxes": ("box",), "scores": ("score", "conf"), "labels": ("label", "class", "cls"), "count": ("num", "count")}
MANY = 1000  # rows that no selection gives


def guess(shapes: Shapes, classes: int) -> tuple[dict[str, Any], int]:
    """Return the settings of the decoder and the number of classes; no settings where nothing can be told.

    Args:
        shapes: Of the outputs without the batch, None for free sizes.
        classes: The number of classes; 0 if it is unknown.
    """
    if roles := _roles(shapes):
        settings = {"head": "selected", **{role: (name,) for role, name in roles.items()}}
        return settings, classes
    if len(shapes) == 1:
        return _table(next(iter(shapes.values())), classes)
    tables = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    boxes = [name for name, shape in tables.items() if shape[1] == 4]
    others = [name for name in tables if name not in boxes]
    if len(shapes) == 2 and len(boxes) == len(others) == 1 and tables[others[0]][1]:
        columns = int(tables[others[0]][1] or 0)
        return {"head": "boxes", "boxes": tuple(boxes), "scores": tuple(others)}, classes or columns
    return {}, classes


def _table(shape: tuple[int | None, ...], classes: int) -> tuple[dict[str, Any], int]:
    """Return what one output (rows, columns) may be."""
    if len(shape) != 2:
        return {}, classes
    rows, columns = shape
    few = rows is None or rows < MANY
    if columns == 6 and (few or classes != 1):
        return {"head": "end-to-end"}, classes
    if rows is not None and rows > 4 and (rows == 4 + classes if classes else columns is None or rows < columns):
        return {"head": "yolo"}, rows - 4
    if columns is not None and columns > 5 and (columns == 5 + classes if classes else True):
        return {"head": "yolo-objectness"}, columns - 5
    if classes and columns == 4 + classes:
        return {"head": "yolo"}, classes
    return {}, classes


def _roles(shapes: Shapes) -> dict[str, str]:
    """Return the output of each role by its name; nothing unless there are boxes, scores and labels apart."""
    roles: dict[str, str] = {}
    for name, shape in shapes.items():
        role = next((role for role in ("count", *WORDS) if any(word in name.lower() for word in WORDS[role])), "")
        if role and role not in roles and len(shape) <= 2:
            roles[role] = name
    whole = {"boxes", "scores", "labels"} <= set(roles) and len(shapes[roles["scores"]]) <= 1
    return roles if whole and len(roles) == len(shapes) else {}
