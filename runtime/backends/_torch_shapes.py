"""Operators of the torch backend that move, cut and join tensors, from ONNX's specification."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ModelError
from ..packages import need
from ._torch_common import Attributes, Function, from_input, ints, padded


def _concat(attributes: Attributes) -> Function:
    return lambda *parts: need("torch").cat(parts, attributes["axis"])


def _split(attributes: Attributes) -> Function:
    def run(x: Any, sizes: Any = None) -> Any:
        axis, count = attributes.get("axis", 0), int(attributes.get("num_outputs") or attributes["outputs"])
        wanted = from_input(attributes, "split", sizes)
        if wanted is None:
            each = math.ceil(x.shape[axis] / count)
            wanted = [min(each, x.shape[axis] - each * at) for at in range(count)]
        return x.split(wanted, axis)

    return run


def _slice(attributes: Attributes) -> Function:
    def run(x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
        begins, stops = from_input(attributes, "starts", starts), from_input(attributes, "ends", ends)
        assert begins is not None
        assert stops is not None
        places = from_input(attributes, "axes", axes) or list(range(len(begins)))
        strides = from_input(attributes, "steps", steps) or [1] * len(begins)
        for begin, stop, place, stride in zip(begins, stops, places, strides, strict=True):
            picked = range(x.shape[place])[
                slice(begin, None if stride < 0 and stop < -x.shape[place] else stop, stride)
            ]
            x = x.index_select(place, need("torch").tensor(list(picked), device=x.device))
        return x

    return run


def _gather(attributes: Attributes) -> Function:
    def run(x: Any, indices: Any) -> Any:
        axis = attributes.get("axis", 0) % x.ndim
        places = indices.to(x.device).long() % x.shape[axis]
        picked = x.index_select(axis, places.reshape(-1))
        return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])

    return run


def _reshape(attributes: Attributes) -> Function:
    def run(x: Any, shape: Any = None) -> Any:
        wanted = from_input(attributes, "shape", shape)
        assert wanted is not None
        if not attributes.get("allowzero"):
            wanted = [x.shape[at] if size == 0 else size for at, size in enumerate(wanted)]
        return x.reshape(wanted)

    return run


def _flatten(attributes: Attributes) -> Function:
    def run(x: Any) -> Any:
        axis = attributes.get("axis", 1)
        return x.reshape(math.prod(x.shape[: axis % x.ndim if axis < 0 else axis]), -1)

    return run


def _squeeze(attributes: Attributes) -> Function:
    def run(x: Any, axes: Any = None) -> Any:
        wanted = from_input(attributes, "axes", axes)
        return x.squeeze() if wanted is None else x.squeeze(tuple(wanted))

    return run


def _unsqueeze(attributes: Attributes) -> Function:
    def run(x: Any, axes: Any = None) -> Any:
        wanted = from_input(attributes, "axes", axes) or []
        rank = x.ndim + len(wanted)
        for axis in sorted(axis % rank for axis in wanted):
            x = x.unsqueeze(axis)
        return x

    return run


def _padded(attributes: Attributes) -> Function:
    def run(x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
        given = from_input(attributes, "pads", pads) or from_input(attributes, "paddings", None)
        assert given is not None
        half = len(given) // 2
        places = from_input({}, "axes", axes) or list(range(half))
        whole = [0] * 2 * x.ndim
        for at, place in enumerate(places):
            whole[place % x.ndim], whole[x.ndim + place % x.ndim] = given[at], given[half + at]
        mode = attributes.get("mode", b"constant").decode()
        filler = attributes.get("value", 0.0) if value is None else float(value)
        if mode == "constant":
            return padded(x, whole, filler)
        spatial = [*whole[2 : x.ndim], *whole[x.ndim + 2 :]]
        return padded(x, spatial, mode={"edge": "replicate", "reflect": "reflect"}[mode])

    return run


def _resize(attributes: Attributes) -> Function:
    mode = attributes.get("mode", b"nearest").decode()
    mapping = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    known = {("nearest", "asymmetric"), ("linear", "half_pixel"), ("linear", "pytorch_half_pixel")}
    known |= {("linear", "align_corners")}
    if (mode, mapping) not in known:
        raise ModelError(f"the torch backend has no Resize with {mode}, {mapping}", do="use the backend ort")

    def run(x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
        functional = need("torch").nn.functional
        if sizes is not None and len(sizes):
            wanted = ints(sizes)[2:]
        else:
            wanted = [int(size * float(scale)) for size, scale in zip(x.shape[2:], scales[2:], strict=True)]
        if mode == "nearest":
            return functional.interpolate(x, size=wanted, mode="nearest")
        return functional.interpolate(x, size=wanted, mode="bilinear", align_corners=mapping == "align_corners")

    return run


def _cast(attributes: Attributes) -> Function:
    def run(x: Any) -> Any:
        torch, onnx = need("torch"), need("onnx")
        kind = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]).name
        return x.to(getattr(torch, "bool" if kind == "bool" else kind))

    return run


def _transpose(attributes: Attributes) -> Function:
    return lambda x: x.permute(*attributes.get("perm", range(x.ndim)[::-1]))


def _expand(attributes: Attributes) -> Function:
    return lambda x, shape: x * need("torch").ones(ints(shape), dtype=x.dtype, device=x.device)


def _shape(attributes: Attributes) -> Function:
    cut = slice(attributes.get("start"), attributes.get("end"))
    return lambda x: need("torch").tensor(list(x.shape)[cut], dtype=need("torch").int64)


def _depth_to_space(attributes: Attributes) -> Function:
    def run(x: Any) -> Any:
        side, (n, c, h, w) = attributes["blocksize"], x.shape
        if attributes.get("mode", b"DCR") == b"CRD":
            return need("torch").pixel_shuffle(x, side)
        y = x.reshape(n, side, side, c // side**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(n, c // side**2, h * side, w * side)

    return run


TABLE = {
    "Cast": _cast, "Concat": _concat, "DepthToSpace": _depth_to_space, "Expand": _expand, "Flatten": _flatten,
    "Gather": _gather, "Pad": _padded, "Reshape": _reshape, "Resize": _resize, "Shape": _shape, "Slice": _slice,
    "Split": _split, "Squeeze": _squeeze, "Transpose": _transpose, "Unsqueeze": _unsqueeze,
}  # fmt: skip
