"""How detectors write boxes and scores: from one image's outputs to candidates, in pixels of the network's input.

yolo             (4 + classes, N): centre and size in pixels, one score for each class (YOLO v8 to v12)
yolo-objectness  (N, 5 + classes): centre and size, objectness, classes (YOLO v5, v7); `strides`: of a raw grid (YOLOX)
end-to-end       (N, columns): one row for each object, already selected (YOLO v10, `nms=True`, PaddleDetection)
selected         boxes, scores and labels apart, already selected (files with NMS inside); `count`: how many rows hold
boxes            boxes (N, 4) and scores (N, classes)
anchors          deltas to anchors (N, 4) and scores (N, classes): SSD, RetinaNet
distances        distances from points to the four sides (N, 4 x bins), scores, centredness: FCOS, NanoDet, YOLO raw
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..images.boxes import corners
from ..images.postprocess import softmax
from ._head_settings import COLUMNS, ROLES, complete

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import DecodeContext, Outputs

    Array = NDArray[Any]

LARGEST_DELTA = float(np.log(1000 / 16))  # of a logarithm of sizes, as torchvision clips it


@dataclass(frozen=True)
class Candidates:
    """What a head found before selection.

    Attributes:
        scores: (classes, N), 0 to 1; (N,) of objects that are already selected.
        boxes: From indices (M,) the boxes (M, 4), x1, y1, x2, y2 in pixels of the network's input, float64.
        labels: int64 (N,), of objects that are already selected.
    """

    scores: Array
    boxes: Callable[[Array], Array]
    labels: Array | None = None


def read(outputs: Outputs, context: DecodeContext) -> Candidates:
    """Return the candidates in the outputs of one image.

    Raises:
        DataError: The spec names no head, or the outputs do not have its shapes.
    """
    settings = complete(context.decoder)
    head = HEADS.get(settings["head"])
    if head is None:
        raise DataError("the spec does not say how boxes are decoded", expected=f"a head: {', '.join(HEADS)}",
                        do="see docs/how-to/yolo-export.md")  # fmt: skip
    return head(outputs, settings, context)


def _yolo(outputs: Outputs, settings: Mapping[str, Any], context: DecodeContext) -> Candidates:
    table = _only(outputs, settings)
    rows = 4 + context.classes
    if table.ndim == 2 and rows not in table.shape[:1] and table.shape[1] == rows:
        table = table.T
    _require(table, (rows, None), "yolo")
    scores = _activated(table[4:], settings, axis=0)
    return Candidates(scores, lambda at: _in_pixels(table[:4, at].T, settings, context))


def _objectness(outputs: Outputs, settings: Mapping[str, Any], context: DecodeContext) -> Candidates:
    table = _only(outputs, settings)
    _require(table, (None, 5 + context.classes), "yolo-objectness")
    scores = _activated(table[:, 4:].T, settings, axis=0)
    scores = scores[1:] * scores[0]
    if not settings["strides"]:
        return Candidates(scores, lambda at: _in_pixels(table[at, :4], settings, context))
    points, strides = _grid({**settings, "offset": 0.0}, context, len(table))

    def boxes(at: Array) -> Array:
        centres = (table[at, :2] + points[at] / strides[at]) * strides[at]
        return corners(np.concatenate([centres, np.exp(np.minimum(table[at, 2:4], 20)) * strides[at]], 1), "cxcywh")

    return Candidates(scores, boxes)


def _end_to_end(outputs: Outputs, settings: Mapping[str, Any], context: DecodeContext) -> Candidates:
    table, columns = _only(outputs, settings), settings["columns"]
    _require(table, (None, len(columns)), "end-to-end")
    place = {name: columns.index(name) for name in columns}
    box = table[:, [place[name] for name in COLUMNS[1:5]]]
    labels = np.rint(table[:, place["label"]]).astype(np.int64) - settings["first_label"]
    return Candidates(table[:, place["score"]], lambda at: _in_pixels(box[at], settings, context), labels)


def _selected(outputs: Outputs, settings: Mapping[str, Any], context: DecodeContext) -> Candidates:
    parts = {role: _part(outputs, settings, role) for role in ("boxes", "scores", "labels")}
    count = len(parts["boxes"])
    if settings["count"]:
        count = min(count, int(np.asarray(_part(outputs, settings, "count")).reshape(-1)[0]))
    scores, labels = (np.asarray(parts[role]).reshape(-1)[:count] for role in ("scores", "labels"))
    _require(parts["boxes"], (None, 4), "selected")
    if not len(scores) == len(labels) == count:
        raise _unfit("selected", {role: part.shape for role, part in parts.items()}, "as many boxes as scores, labels")
    labels = np.rint(labels).astype(np.int64) - settings["first_label"]
    return Candidates(scores, lambda at: _in_pixels(parts["boxes"][at], settings, context), labels)


def _boxes(outputs: Outputs, settings: Mapping[str, Any], context: DecodeContext) -> Candidates:
    boxes, scores = _rows(outputs, settings, "boxes", 4), _class_scores(outputs, settings, context)
    if len(boxes) != scores.shape[1]:
        raise _unfit("boxes", f"{len(boxes)} boxes, {scores.shape[1]} scores", "as many of each")
    return Candidates(scores, lambda at: _in_pixels(boxes[at], settings, context))


def _anchors(outputs: Outputs, settings: Mapping[str, Any], context: DecodeContext) -> Candidates:
    deltas, scores = _rows(outputs, settings, "boxes", 4), _class_scores(outputs, settings, context)
    anchors = anchor_boxes(settings, _input_size(context))
    if not len(deltas) == scores.shape[1] == len(anchors):
        got = f"{len(deltas)} boxes, {scores.shape[1]} scores, {len(anchors)} anchors"
        raise _unfit("anchors", got, "as many of each")
    variances = np.array(settings["variances"], np.float64)

    def boxes(at: Array) -> Array:
        delta = deltas[at].astype(np.float64)
        delta = (delta[:, [1, 0, 3, 2]] if settings["form"] == "yxyx" else delta) * variances
        anchor = anchors[at]
        centre = anchor[:, :2] + delta[:, :2] * anchor[:, 2:]
        size = anchor[:, 2:] * np.exp(np.minimum(delta[:, 2:], LARGEST_DELTA))
        return corners(np.concatenate([centre, size], 1), "cxcywh")

    return Candidates(scores, boxes)


def _distances(outputs: Outputs, settings: Mapping[str, Any], context: DecodeContext) -> Candidates:
    bins = settings["bins"]
    if len(outputs) == 1 or (settings["boxes"] and not settings["scores"]):
        rows = _rows(outputs, settings, "boxes", 4 * bins + context.classes)
        split = context.classes if settings["scores_first"] else 4 * bins
        parts = rows[:, :split], rows[:, split:]
        sides, raw = parts[::-1] if settings["scores_first"] else parts
        scores = _activated(raw.T, settings, axis=0)
    else:
        sides, scores = _rows(outputs, settings, "boxes", 4 * bins), _class_scores(outputs, settings, context)
    points, strides = _grid(settings, context, len(sides))
    if settings["centres"]:
        centred = _rows(outputs, settings, "centres", 1)[:, 0]
        scores = np.sqrt(scores * _activated(centred, {"activation": "sigmoid"}, axis=0))

    def boxes(at: Array) -> Array:
        side: Array = sides[at].astype(np.float64)
        if bins > 1:
            side = softmax(side.reshape(-1, 4, bins)) @ np.arange(bins, dtype=np.float64)
        side = side * strides[at]
        return np.concatenate([points[at] - side[:, :2], points[at] + side[:, 2:]], 1)

    return Candidates(scores, boxes)


HEADS: dict[str, Callable[[Outputs, Mapping[str, Any], DecodeContext], Candidates]] = {
    "yolo": _yolo, "yolo-objectness": _objectness, "end-to-end": _end_to_end, "selected": _selected,
    "boxes": _boxes, "anchors": _anchors, "distances": _distances,
}  # fmt: skip


def anchor_boxes(settings: Mapping[str, Any], size: tuple[int, int]) -> Array:
    """Return the anchors (N, 4), centre and size in pixels of the input: `anchors` themselves, or those of the cells.

    The anchors of a cell share its centre, and have the `sizes` (width, height) of its level; the order is rows,
    columns, sizes. Without `strides`, a level of `levels` is rows, columns and sizes; the input is divided evenly.
    """
    if settings["anchors"]:
        return np.array(settings["anchors"], np.float64)
    parts = []
    for centres, sizes in zip(_level_points(settings, size), settings["sizes"], strict=False):
        parts.append(_at_centres(centres, sizes))
    for rows, columns, sizes in settings["levels"]:
        cells = _cells(rows, columns) + 0.5
        parts.append(_at_centres(cells * size[::-1] / (columns, rows), sizes))
    return np.concatenate(parts) if parts else np.zeros((0, 4))


def _at_centres(centres: Array, sizes: tuple[tuple[float, float], ...]) -> Array:
    each = np.tile(np.array(sizes, np.float64), (len(centres), 1))
    return np.concatenate([np.repeat(centres, len(sizes), 0), each], 1)


def _cells(rows: int, columns: int) -> Array:
    """Return the column and row of each cell, (rows * columns, 2)."""
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return np.stack([x.reshape(-1), y.reshape(-1)], 1)


def _level_points(settings: Mapping[str, Any], size: tuple[int, int]) -> list[Array]:
    """Return for each stride the points (N, 2), x and y, of its cells, in pixels of the input."""
    points = []
    for stride in settings["strides"]:
        rows, columns = (-(-side // stride) for side in size)
        step = (size[1] // columns, size[0] // rows) if settings["spread"] else (stride, stride)
        points.append((_cells(rows, columns) + float(settings["offset"])) * step)
    return points


def _grid(settings: Mapping[str, Any], context: DecodeContext, count: int) -> tuple[Array, Array]:
    """Return the points (N, 2), x and y, of the cells of all levels, and the stride of each, (N, 1)."""
    size, strides = _input_size(context), settings["strides"]
    points = _level_points(settings, size)
    if sum(map(len, points)) != count:
        got = f"{count} rows, strides {strides} of {size[1]}x{size[0]}"
        raise _unfit("grid", got, f"{sum(map(len, points))} rows")
    steps = [np.full((len(part), 1), float(stride)) for part, stride in zip(points, strides, strict=True)]
    return np.concatenate(points), np.concatenate(steps)


def _class_scores(outputs: Outputs, settings: Mapping[str, Any], context: DecodeContext) -> Array:
    """Return scores (classes, N) without the background."""
    background = settings["background"]
    rows = _rows(outputs, settings, "scores", context.classes + (background >= 0))
    scores = _activated(rows.T, settings, axis=0)
    return np.delete(scores, background, axis=0) if background >= 0 else scores


def _activated(values: Array, settings: Mapping[str, Any], axis: int) -> Array:
    if settings["activation"] == "softmax":
        return softmax(values, axis)
    if settings["activation"] == "sigmoid":
        return 1 / (1 + np.exp(-np.clip(values.astype(np.float32), -80, 80)))
    return values


def _rows(outputs: Outputs, settings: Mapping[str, Any], role: str, columns: int) -> Array:
    """Return the outputs of a role as one table (N, columns): maps (anchors x columns, H, W) cell by cell, tables."""
    parts = [_table(outputs[name], columns, role) for name in _names(outputs, settings, role)]
    return np.concatenate(parts)


def _table(value: Array, columns: int, role: str) -> Array:
    if value.ndim == 3 and value.shape[0] % columns == 0 and value.shape[2] != columns:
        return value.transpose(1, 2, 0).reshape(-1, columns)
    if value.ndim == 2 and value.shape[1] != columns and value.shape[0] == columns:
        return value.T
    if value.ndim < 2 or value.shape[-1] != columns:
        raise _unfit(role, value.shape, f"(N, {columns})")
    return value.reshape(-1, columns)


def _only(outputs: Outputs, settings: Mapping[str, Any]) -> Array:
    return outputs[settings["boxes"][0]] if settings["boxes"] else next(iter(outputs.values()))


def _part(outputs: Outputs, settings: Mapping[str, Any], role: str) -> Array:
    return outputs[_names(outputs, settings, role)[0]]


def _names(outputs: Outputs, settings: Mapping[str, Any], role: str) -> tuple[str, ...]:
    """Return the outputs that have a role: those of the spec, or the one in its place."""
    place = ROLES.index(role)
    names: tuple[str, ...] = settings[role] or tuple(outputs)[place : place + 1]
    if not names or not set(names) <= set(outputs):
        raise _unfit(role, ", ".join(outputs), f"the outputs {', '.join(names)}" if names else "one more output")
    return names


def _in_pixels(boxes: Array, settings: Mapping[str, Any], context: DecodeContext) -> Array:
    result = corners(boxes, settings["form"])
    if settings["unit"] == "shares":
        height, width = _input_size(context)
        result = result * np.array([width, height, width, height], np.float64)
    return result


def _input_size(context: DecodeContext) -> tuple[int, int]:
    if context.preprocess is None:
        raise DataError("boxes cannot be decoded", got="a network that takes no images", expected="an image as input")
    return context.preprocess.crop


def _require(value: Array, shape: tuple[int | None, ...], head: str) -> None:
    if value.ndim != len(shape) or any(want not in (None, size) for size, want in zip(value.shape, shape, strict=True)):
        expected = ", ".join("N" if size is None else str(size) for size in shape)
        raise _unfit(head, value.shape, f"({expected})")


def _unfit(head: str, got: Any, expected: str) -> DataError:
    return DataError(f"the outputs do not fit the decoder ({head})", got=str(got), expected=expected)
