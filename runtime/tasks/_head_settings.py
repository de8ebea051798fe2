"""The settings of a detector's decoder in a spec: names, defaults, and what each may be.

head             how outputs are read, a key of DEFAULTS; `_heads.py` describes each
boxes, scores, labels, count, centres
                 names of the outputs, several of one kind joined; those left out stand in this order
columns          of `end-to-end`: what each column holds; "-" for nothing
form, unit       of boxes: corners, or a corner or the centre with the size; pixels of the input, or shares of it
activation       of scores: none, sigmoid, softmax; `background`: which of them is no class (-1: none)
first_label      the number that outputs give the first class
anchors, levels, sizes, variances
                 of `anchors`: (centre x, centre y, width, height) each; or rows, columns and sizes of each level;
                 or with `strides` the sizes (width, height) of each level, for inputs of any size
strides, offset, spread, bins, scores_first
                 of `distances`, raw grids, `anchors` by `sizes`: pixels between points, their place in a cell (of raw
                 grids 0); `spread`: between points lie the input's pixels over the level's cells, rounded down, which
                 is less where a stride does not divide the input (torchvision); bins of one distance
score_threshold, iou_threshold, most, agnostic
                 which objects are answered; how much boxes may overlap, of one class or (agnostic) of any
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..images.boxes import FORMS

COLUMNS = ("image", "x1", "y1", "x2", "y2", "score", "label")
ROLES = ("boxes", "scores", "labels", "count", "centres")
# Setting -> its default; a head's own defaults stand in DEFAULTS.
SETTINGS: dict[str, Any] = {
    "head": "", "boxes": (), "scores": (), "labels": (), "count": (), "centres": (), "columns": COLUMNS[1:],
    "form": "cxcywh", "unit": "pixels", "activation": "none", "background": -1, "first_label": 0,
    "anchors": (), "levels": (), "sizes": (), "variances": (0.1, 0.1, 0.2, 0.2), "strides": (), "offset": 0.5,
    "spread": False, "bins": 1, "scores_first": False,
    "score_threshold": 0.25, "iou_threshold": 0.5, "most": 300, "agnostic": False,
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "yolo": {"iou_threshold": 0.7},
    "yolo-objectness": {"iou_threshold": 0.45},
    "end-to-end": {"form": "xyxy"},
    "selected": {"form": "xyxy"},
    "boxes": {"form": "xyxy"},
    "anchors": {"activation": "softmax", "background": 0},
    "distances": {"activation": "sigmoid", "iou_threshold": 0.6},
}
UNITS, ACTIVATIONS = ("pixels", "shares"), ("none", "sigmoid", "softmax")


def complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting; those that are not given have the head's defaults."""
    return {**SETTINGS, **DEFAULTS.get(str(settings.get("head")), {}), **settings}


def check(settings: Mapping[str, Any]) -> None:
    """Check the settings of a spec.

    Raises:
        TypeError: An unknown setting, or a value that cannot be.
    """
    if unknown := sorted(set(settings) - set(SETTINGS)):
        raise TypeError(f"decoder.{unknown[0]} is not one of {', '.join(SETTINGS)}")
    values = complete(settings)
    words = {"head": tuple(DEFAULTS), "form": FORMS, "unit": UNITS, "activation": ACTIVATIONS}
    if wrong := next((name for name, known in words.items() if values[name] not in tuple(known)), ""):
        raise TypeError(f"decoder.{wrong} {values[wrong]!r} is not one of {', '.join(words[wrong])}")
    for role in ROLES:
        _check(role, values[role], _tuple(values[role], lambda name: isinstance(name, str)))
    columns = values["columns"]
    _check("columns", columns, isinstance(columns, tuple) and set(COLUMNS[1:]) <= set(columns) <= {*COLUMNS, "-"})
    for name in ("score_threshold", "iou_threshold"):
        _check(name, values[name], _number(values[name]) and 0 <= values[name] <= 1)
    _check("offset", values["offset"], _number(values["offset"]))
    for name, least in (("most", 1), ("bins", 1), ("background", -1), ("first_label", 0)):
        _check(name, values[name], _whole(values[name], least))
    for name in ("agnostic", "scores_first", "spread"):
        _check(name, values[name], isinstance(values[name], bool))
    _check("strides", values["strides"], _tuple(values["strides"], lambda one: _whole(one, 1)))
    _check("variances", values["variances"], _tuple(values["variances"], _number) and len(values["variances"]) == 4)
    four = lambda one: _tuple(one, _number) and len(one) == 4  # noqa: E731
    _check("anchors", values["anchors"], _tuple(values["anchors"], four))
    _check("levels", values["levels"], _tuple(values["levels"], _level))
    sizes = values["sizes"]
    _check("sizes", sizes, _tuple(sizes, _pairs) and len(sizes) in (0, len(values["strides"])))


def _check(name: str, value: Any, right: bool) -> None:
    if not right:
        raise TypeError(f"decoder.{name} {str(value)[:80]} cannot be used")


def _level(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and _whole(value[0], 1) and _whole(value[1], 1) and \
        _pairs(value[2])  # fmt: skip


def _pairs(value: Any) -> bool:
    return _tuple(value, lambda one: _tuple(one, _number) and len(one) == 2)


def _tuple(value: Any, right: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple) and all(map(right, value))


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 1 << 20
