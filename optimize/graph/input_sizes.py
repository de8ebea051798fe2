"""Fix dynamic axes of a graph's inputs (-1, 0, "?" or a name), and all other axes with the same name."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from ...runtime.common.sizes import Sizes
from ...runtime.errors import UsageError
from .graph import Graph


def fix_batch(net: Graph, batch: int) -> None:
    """Fix the dynamic first axis of every input, and all axes with its name.

    Raises:
        UsageError: No input has a dynamic first axis, or one is fixed to another size.
    """
    inputs = [value for value in net.skeleton.graph.input if has_dimensions(value)]
    firsts = [value.type.tensor_type.shape.dim[0] for value in inputs]
    if all(dim.dim_value > 0 for dim in firsts) and any(dim.dim_value != batch for dim in firsts):
        sizes = sorted({dim.dim_value for dim in firsts})
        raise UsageError(
            f"the batch cannot be fixed to {batch}", got=f"inputs of batch {sizes}", expected="a dynamic batch"
        )
    _fix(net, {(value.name, 0): batch for value in inputs})


def fix_sizes(net: Graph, sizes: Sizes) -> None:
    """Fix the shapes of inputs.

    Args:
        net: Changed in place.
        sizes: Input -> the size of each axis; None and other inputs are not changed.

    Raises:
        UsageError: An unknown input, or sizes that do not match fixed axes.
    """
    inputs = {value.name: value for value in net.skeleton.graph.input}
    for name, wanted in sizes.items():
        if name not in inputs:
            raise UsageError("there is no such input", got=repr(name)[:200], expected=", ".join(inputs)[:300])
        dims = [max(dim.dim_value, 0) for dim in inputs[name].type.tensor_type.shape.dim]
        misfits = [have > 0 and want not in (None, have) for have, want in zip(dims, wanted, strict=False)]
        if len(dims) != len(wanted) or any(misfits):
            got, expected = (
                "x".join(str(size) if size and size > 0 else "?" for size in one) for one in (wanted, dims)
            )
            raise UsageError(f"the sizes do not match the input {name!r}", got=got, expected=expected)
    by_axis = {(name, axis): size for name, wanted in sizes.items() for axis, size in enumerate(wanted)}
    _fix(net, {place: size for place, size in by_axis.items() if size is not None})


def has_dimensions(value: onnx.ValueInfoProto) -> bool:
    """Return whether a value is a tensor of at least rank 1."""
    return value.type.HasField("tensor_type") and len(value.type.tensor_type.shape.dim) > 0


def _fix(net: Graph, sizes: Mapping[tuple[str, int], int]) -> None:
    """Fix dynamic axes of inputs by (name, axis), and every axis with the same name.

    Raises:
        UsageError: Two sizes for one name.
    """
    graph, by_name = net.skeleton.graph, dict[str, int]()
    for value in graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim if has_dimensions(value) else ()):
            size, symbol = sizes.get((value.name, axis)), dim.dim_param
            if size is None or dim.dim_value > 0:
                continue
            if symbol and by_name.setdefault(symbol, size) != size:
                raise UsageError(f"the dynamic axis {symbol!r} is set to both {by_name[symbol]} and {size}")
            dim.dim_value = size
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ():
            if dim.dim_param in by_name:
                dim.dim_value = by_name[dim.dim_param]
    net.value_types, net.inferred = {}, False
