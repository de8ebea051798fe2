"""The sizes that an engine is built for: of each input that leaves some free, the least, the usual and the greatest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...runtime.common.sizes import settle_shape
from ...runtime.errors import ModelError, UsageError
from ...runtime.spec import ModelSpec
from ..graph.spec_metadata import embedded, fed_inputs

Sizes = tuple[int, ...]
Profile = dict[str, tuple[Sizes, Sizes, Sizes]]


def settle_profile(
    path: str | Path, batch: Sequence[int] | None = None, shapes: Mapping[str, Sequence[Sequence[int]]] | None = None
) -> Profile:
    """Return (min, opt, max) shapes of the inputs of an ONNX file that leave a size free.

    Args:
        path: The file; its ModelSpec says the sizes that nothing else says, and their ranges.
        batch: (min, opt, max) of free batches; None takes those of `shapes`, else 1.
        shapes: Input -> its three shapes; "" is the only input.

    Raises:
        ModelError: It is not an ONNX file, or its ModelSpec cannot be read.
        UsageError: No such input, or a size that nothing says.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ModelError(f"{path} is no ONNX file", got=type(error).__name__, do="export it again") from error
    dims_of: dict[str, tuple[int | None, ...]] = {
        value.name: tuple(dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim)
        for value in fed_inputs(model)
    }
    requests = dict(shapes or {})
    if "" in requests and len(dims_of) == 1:
        requests[next(iter(dims_of))] = requests.pop("")
    if unknown := [name for name in requests if name not in dims_of]:
        raise UsageError(
            f"there is no input {unknown[0]!r}", expected=", ".join(dims_of), do="write --shape NAME=SIZES"
        )
    of_shapes = [[shape[0] for shape in three] for name, three in requests.items() if dims_of[name][:1] == (None,)]
    counts, spec = batch or (of_shapes or [[1, 1, 1]])[0], embedded(model)
    profile: Profile = {}
    for name, dims in dims_of.items():
        if name in requests or None in dims:
            texts = [_text(name, shape) for shape in requests.get(name, ())] or ["", "", ""]
            low, best, high = (
                settle_shape({name: dims}, text, spec, count)[name] for text, count in zip(texts, counts, strict=True)
            )
            if name not in requests and spec is not None:
                low, high = (_bounded(spec, name, dims, low, "least"), _bounded(spec, name, dims, high, "most"))
            profile[name] = (low, best, high)
    return profile


def _bounded(spec: ModelSpec, name: str, dims: Sequence[int | None], sizes: Sizes, bound: str) -> Sizes:
    """Return sizes with the bound of its range, "least" or "most", on each axis that is free and has one."""
    bounds = {one.axis: getattr(one, bound) for one in spec.ranges if one.input == name and dims[one.axis] is None}
    return tuple(bounds.get(axis, size) for axis, size in enumerate(sizes))


def _text(name: str, sizes: Sequence[int]) -> str:
    return f"{name}={'x'.join(map(str, sizes))}"
