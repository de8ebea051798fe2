"""Facts of any ONNX file: from its metadata (ours or Ultralytics') and from its graph."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...optimize.graph import spec_metadata
from ...optimize.graph.proto_graph import loaded
from ...optimize.graph.schema_check import require_known_operators
from ...optimize.graph.upgrade import upgraded
from ...optimize.quantize.placement import is_quantised
from ...optimize.quantize.qdq.trained_ranges import without_pairs
from ...runtime.common.sizes import named_sizes
from ...runtime.errors import ModelError, UsageError
from ...runtime.spec import GREY, SPEC_KEY, InputSpec, ModelSpec
from .facts import GUESS, Facts, add_decoder
from .fixed_batch import with_free_batch
from .input_ranges import IMAGE_AXES, Dims, gather_ranges, settle_ranges

if TYPE_CHECKING:
    import onnx

TYPES = {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
         10: "float16", 11: "float64"}  # fmt: skip
YOLO5 = {"stride", "names"}  # the metadata that YOLO v5's own exporter writes
ULTRALYTICS_TASKS = {"classify": "classify", "detect": "detect", "pose": "keypoints"}  # theirs -> ours
Sizes = dict[str, tuple["int | None", ...]]


def add_metadata(path: Path, facts: Facts) -> None:
    """Add the facts of a file's metadata: our spec, or the metadata of Ultralytics' exporter.

    Raises:
        UsageError: There is no such file.
        ModelError: It is not an ONNX file, or its spec cannot be read.
    """
    texts = {entry.key: entry.value for entry in loaded(path).metadata_props}
    if SPEC_KEY in texts:
        spec = ModelSpec.from_json(texts[SPEC_KEY])
        facts.add_spec("the file's metadata", spec)
    elif "ultralytics" in f"{texts.get('author', '')} {texts.get('description', '')}".lower() or set(texts) == YOLO5:
        _add_ultralytics(texts, facts)


def _add_ultralytics(texts: Mapping[str, str], facts: Facts) -> None:
    """https://docs.ultralytics.com/modes/export: metadata `task`, `names`, `imgsz`; pixels / 255, RGB.

    Files of YOLO v5's own exporter have `names` and `stride` alone, and detect.

    Classifiers take the centre crop of an image whose shorter side Pillow resized; all others take a letterbox resized
    by OpenCV.
    """
    names, size, task = _literal(texts.get("names")), _literal(texts.get("imgsz")), texts.get("task", "detect")
    labels = tuple(str(names[key]) for key in sorted(names)) if isinstance(names, dict) else None
    classifies = task == "classify"
    size = tuple(size) if isinstance(size, list) and len(size) == 2 else None
    fitting = {"fit": "letterbox", "fill": GREY, "interpolation": "opencv-linear"}
    if classifies:
        fitting = {"resize": min(size) if size else None, "interpolation": "bilinear"}
    facts.add(
        "Ultralytics' metadata", labels=labels, num_classes=len(labels) if labels else None,
        size=size, **fitting,
        task=ULTRALYTICS_TASKS.get(str(task), "features"), decoder=_keypoints(texts), channels="RGB",
        mean=(0.0,) * 3, std=(1.0,) * 3,
        scores="probabilities" if classifies else None,
    )  # fmt: skip


def _keypoints(texts: Mapping[str, str]) -> dict[str, Any] | None:
    """Return how many numbers each keypoint has, from `kpt_shape`: (keypoints, 2 or 3)."""
    shape = _literal(texts.get("kpt_shape"))
    able = isinstance(shape, (list, tuple)) and len(shape) == 2 and shape[1] in (2, 3) and texts.get("task") == "pose"
    return {"dimensions": shape[1]} if able else None


def _literal(text: str | None) -> Any:
    try:
        return ast.literal_eval(text or "None")
    except (ValueError, SyntaxError):
        return None


def add_graph(
    path: Path, facts: Facts, shapes: str = "", size: tuple[int, int] | None = None
) -> tuple[onnx.ModelProto, Sizes]:
    """Add the facts of a file's graph, and guesses from it.

    Args:
        path: The file.
        facts: Added to.
        shapes: Shapes of inputs, as in `--shape`.
        size: Height and width of the first input, if they are dynamic axes.

    Returns:
        The graph to export, whose batch is 1 or free; and for the inputs with dynamic axes: name -> shape with the
        batch, 1 if dynamic, and None for sizes that have a range.

    Raises:
        UsageError: An unknown dynamic size, an input that is not a tensor, sizes that do not match, or a fixed batch of
            several whose samples depend on each other.
        ModelError: An operator that ONNX Runtime does not have.
    """
    graph = _loaded(path, facts)
    model, _ = upgraded(graph, must=False)
    inputs = {value.name: value for value in spec_metadata.fed_inputs(model)}
    if not inputs:
        raise UsageError(f"{path} has no inputs", do="export it again")
    fixed = named_sizes(shapes, inputs)
    first, *others = inputs.values()
    dims = {name: _dims(value, path) for name, value in inputs.items()}
    if isinstance(batch := next(iter(dims[first.name]), None), int) and batch != 1:
        got = "x".join(str(dim or "?") for dim in dims[first.name])
        raise UsageError(
            f"the input {first.name!r} of {path} has no batch of 1", got=got, expected="a free first axis, or 1",
            do="export it with a free batch, or a batch of 1",
        )  # fmt: skip
    layout = facts.get("layout") or _layout(dims[first.name])
    whole = {name: _whole(name, each, fixed.get(name, ())) for name, each in dims.items()}
    whole[first.name] = _sized(whole[first.name], layout, size or facts.get("size"))
    _add_ranges(facts, whole, dims, layout)
    _require_fixed(path, whole, layout, first.name)
    shape = tuple(int(dim) for dim in whole[first.name])
    if layout:
        facts.add(GUESS if len(shape) == 4 else "the graph", layout=layout)
    facts.confirm("the graph", input_name=first.name, dtype=_type(first, path), shape=shape[1:])
    same = {value.name: dims[value.name][:1] == dims[first.name][:1] for value in others}
    extra = tuple(_other(value, path, whole[value.name], same[value.name]) for value in others)
    facts.confirm("the graph", **({"other_inputs": extra} if extra else {}))
    _add_outputs(model, facts)
    return graph, _sizes_to_fix(facts, whole, dims)


def _loaded(path: Path, facts: Facts) -> onnx.ModelProto:
    model = loaded(path)
    require_known_operators(model, str(path))
    if is_quantised(model) and without_pairs(model) is None:
        raise ModelError(
            f"{path} is quantised in a way that cannot be read back", got="integer operators, or computed scales",
            expected="float operators, or QuantizeLinear and DequantizeLinear with constant scales",
            do="export the float network, or the training framework's Q/DQ form",
        )  # fmt: skip
    model, batch = with_free_batch(model, path)
    if batch > 1:
        facts.add("the file; it is made free: each sample has the same outputs alone", batch=batch)
    return model


def _dims(value: onnx.ValueInfoProto, path: Path) -> Dims:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        got = "no tensor, or one without a rank"
        raise UsageError(f"the input {value.name!r} of {path} cannot be fed", got=got, do="give its shape in the file")
    return tuple(dim.dim_value if dim.dim_value > 0 else dim.dim_param for dim in kind.shape.dim)


def _type(value: onnx.ValueInfoProto, path: Path) -> str:
    code = value.type.tensor_type.elem_type
    if code not in TYPES:
        raise UsageError(f"the input {value.name!r} of {path} has a type that cannot be fed", got=f"type {code}")
    return TYPES[code]


def _layout(dims: Dims) -> str:
    """Return the layout of an image by its axis of length 1 or 3; of other inputs by their rank."""
    if len(dims) == 4:
        return "NHWC" if dims[3] in (1, 3) and dims[1] not in (1, 3) else "NCHW"
    return {3: "NCT", 5: "NCDHW"}.get(len(dims), "")


def _whole(name: str, dims: Dims, sizes: tuple[int, ...]) -> Dims:
    if sizes:
        fits = len(sizes) == len(dims) and all(
            isinstance(dim, str) or dim == size for dim, size in zip(dims, sizes, strict=True)
        )
        if not fits:
            got, expected = "x".join(map(str, sizes)), "x".join(str(dim or "?") for dim in dims)
            raise UsageError(f"--shape does not fit the input {name!r}", got=got, expected=expected)
        return sizes
    return (1, *dims[1:]) if dims and isinstance(dims[0], str) else dims


def _sized(dims: Dims, layout: str, size: tuple[int, ...] | None) -> Dims:
    axes = IMAGE_AXES.get(layout)
    if axes is None or size is None:
        return dims
    sizes = dict(zip(axes, size, strict=True))
    return tuple(sizes.get(at, dim) if isinstance(dim, str) else dim for at, dim in enumerate(dims))


def _add_ranges(facts: Facts, whole: dict[str, Dims], dims: Mapping[str, Dims], layout: str) -> None:
    first = next(iter(dims))
    facts.ranges = gather_ranges(facts, first, layout)
    guessed = settle_ranges(facts.ranges, whole, dims)
    if guessed and layout in IMAGE_AXES:
        facts.add(f"{GUESS}: the middle of the range", size=tuple(whole[first][at] for at in IMAGE_AXES[layout]))


def _sizes_to_fix(facts: Facts, whole: Mapping[str, Dims], dims: Mapping[str, Dims]) -> Sizes:
    free = {(one.input, one.axis) for one in facts.ranges}
    return {
        name: tuple(None if (name, at) in free else int(size) for at, size in enumerate(each))
        for name, each in whole.items() if tuple(each) != dims[name]
    }  # fmt: skip


def _require_fixed(path: Path, whole: Mapping[str, Dims], layout: str, first: str) -> None:
    for name, dims in whole.items():
        free = [str(dim or "?") for dim in dims if isinstance(dim, str)]
        if free:
            words = "x".join(f"{dim}" if isinstance(dim, int) else "SIZE" for dim in dims)
            image = name == first and layout in ("NCHW", "NHWC") and len(free) <= 2
            do = f"give --size 224, or --shape {name}={words}" if image else f"give --shape {name}={words}"
            axis = (
                'height = "320..1280 step 32" under [input]' if image else f'{name}.AXIS = "100..3000" under [ranges]'
            )
            do = f"{do}; or a range in the file of --spec: {axis}"
            got = "x".join(str(dim or "?") for dim in dims)
            raise UsageError(
                f"the input {name!r} of {path} has a free size", got=got, expected="a size for each", do=do
            )


def _other(value: onnx.ValueInfoProto, path: Path, whole: Dims, batched: bool) -> InputSpec:
    sizes = tuple(int(dim) for dim in whole)
    if not batched or not sizes:
        raise UsageError(
            f"the input {value.name!r} of {path} has no batch axis", got="x".join(map(str, sizes)) or "a scalar",
            expected="the same first axis as the first input", do="make it a constant in the file",
        )  # fmt: skip
    return InputSpec(value.name, sizes[1:], _type(value, path))


def _add_outputs(model: onnx.ModelProto, facts: Facts) -> None:
    outputs = list(model.graph.output)
    facts.confirm("the graph", output_names=tuple(value.name for value in outputs))
    shape = [dim.dim_value for dim in outputs[0].type.tensor_type.shape.dim]
    image = facts.has_image
    classes = shape[1] if len(shape) == 2 and shape[1] > 1 and len(outputs) == 1 and image else 0
    if classes and facts.get("task", "classify") == "classify":
        facts.add(f"{GUESS}: the output is (N, {classes})", task="classify")
        facts.confirm(f"{GUESS}: the output is (N, {classes})", num_classes=classes)
        facts.add("the graph", scores=spec_metadata.model_scores(model, outputs[0].name)[0] or None)
    add_decoder(facts, {one.name: [dim.dim_value or None for dim in one.type.tensor_type.shape.dim] for one in outputs})
    facts.add(f"{GUESS}: nothing is known of the outputs", task="features")
