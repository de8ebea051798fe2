"""The only call to torch's exporter: a module in eval mode becomes an ONNX file with its ModelSpec in the metadata.

The dynamo exporter is used (torch.export captures the graph, so Python control flow is resolved before ONNX sees it).
`keep_batchnorm=True` disables its optimiser: each BatchNormalization stays, and our own pass folds it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..optimize.graph.spec_metadata import scores
from ..runtime import tasks
from ..runtime.common.files import workplace
from ..runtime.common.packages import need
from ..runtime.errors import ModelError, UsageError
from ..runtime.spec import SPEC_KEY, ModelSpec
from .outputs import arranged, is_plain

if TYPE_CHECKING:
    import torch

# The lowest opset that the dynamo exporter writes without converting, so the one that most device parsers know.
DEFAULT_OPSET = 18
OPSETS = range(18, 24)
# protobuf's limit is 2 GiB in total; weights above this size go into an external file.
EXTERNAL_DATA_ABOVE = 1_800_000_000


def export(
    module: torch.nn.Module,
    spec: ModelSpec,
    path: str | Path,
    *,
    dynamic_batch: bool = False,
    opset: int = DEFAULT_OPSET,
    keep_batchnorm: bool = True,
) -> Path:
    """Export a module to ONNX, in eval mode, with the inputs of the spec, (N, *shape) each.

    Args:
        module: The network. Its mode (training or eval) is restored.
        spec: Names of the input and outputs, the input's shape; written into the file's metadata, with `scores` read
            from the graph if the spec does not define it.
        path: The .onnx file to write; it is written completely or not at all. Weights above 1.8 GB are in
            `<path>.data`.
        dynamic_batch: Make N a dynamic axis (named "batch"); otherwise N is 1.
        opset: ONNX operator set, 18 to 23.
        keep_batchnorm: Keep BatchNormalization in the graph, for our own passes.

    Returns:
        The path.

    Raises:
        UsageError: The exporter does not support this opset.
        ModelError: torch cannot capture the module (the message has the reason), or its outputs do not match the names
            in the spec. Outputs with keys are matched by key; see `outputs.arranged`.
    """
    write_onnx(module, spec, path, dynamic_batch=dynamic_batch, opset=opset, keep_batchnorm=keep_batchnorm)
    return Path(path)


def write_onnx(
    module: torch.nn.Module, spec: ModelSpec, path: str | Path, *, dynamic_batch: bool = False,
    opset: int = DEFAULT_OPSET, keep_batchnorm: bool = True,
) -> ModelSpec:  # fmt: skip
    """Like `export`, but return the spec that is in the file."""
    if opset not in OPSETS:
        raise UsageError(
            f"opset {opset} is not supported",
            expected=f"{OPSETS[0]} to {OPSETS[-1]}",
            do=f"leave it at {DEFAULT_OPSET}",
        )
    path = Path(path)
    was_training = module.training
    module.eval()
    # torch.export specialises a batch of one, so a dynamic batch is captured at two.
    examples = example_inputs(spec, 2 if dynamic_batch else 1)
    try:
        with in_a_row(module, examples, spec.output_names):
            program = _capture(module, spec, examples, dynamic_batch, opset, optimize=not keep_batchnorm)
    finally:
        module.train(was_training)
    _drop_made_biases(program.model)
    spec = _with_scores(spec, program.model)
    _clean(program.model, spec)
    big = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values()) > EXTERNAL_DATA_ABOVE
    _save(program, path, external_data=big)
    return spec


def example_inputs(spec: ModelSpec, batch: int) -> tuple[torch.Tensor, ...]:
    """Return zeros for each input, (batch, *shape)."""
    torch = need("torch")
    return tuple(torch.zeros(batch, *one.shape, dtype=getattr(torch, one.dtype)) for one in spec.inputs)


def free_axes(spec: ModelSpec, name: str) -> list[int]:
    """Return the axes of an input that have a range of sizes, counted with the batch."""
    return [one.axis for one in spec.ranges if one.input == name]


@contextmanager
def in_a_row(module: torch.nn.Module, examples: tuple[torch.Tensor, ...], names: Sequence[str]) -> Iterator[None]:
    """Make a module return a flat sequence of tensors in the order of their names.

    Raises:
        ModelError: Its outputs do not match the names.
    """
    try:
        with need("torch").no_grad():
            outputs = module(*examples)
    except Exception:  # the exporter raises it again, with more detail
        yield
        return
    arranged(outputs, names)
    if is_plain(outputs):
        yield
        return
    forward = module.forward
    module.forward = lambda *inputs: tuple(arranged(forward(*inputs), names))
    try:
        yield
    finally:
        del module.forward


def _capture(
    module: torch.nn.Module, spec: ModelSpec, examples: tuple[torch.Tensor, ...], dynamic_batch: bool, opset: int,
    optimize: bool,
) -> Any:  # fmt: skip
    torch = need("torch")
    need("onnxscript")
    free = torch.export.Dim("batch", min=1, max=65536) if dynamic_batch else None
    shapes = tuple(
        ({0: free} if free else {}) | dict.fromkeys(free_axes(spec, one.name), torch.export.Dim.DYNAMIC)
        for one in spec.inputs
    )
    with quiet():
        try:
            return torch.onnx.export(
                module,
                examples,
                dynamo=True,
                optimize=optimize,
                opset_version=opset,
                input_names=[one.name for one in spec.inputs],
                output_names=list(spec.output_names),
                dynamic_shapes=shapes if any(shapes) else None,
                verbose=False,
            )
        except Exception as error:
            raise ModelError(
                f"torch cannot export {spec.name}",
                got=reason(error),
                expected="a module that torch.export captures: no data-dependent control flow, tensors in and out",
                do="try torch.export.export(module, (example,)) on it; its message names the line",
            ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the exporter's log lines and deprecation warnings from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def reason(error: BaseException) -> str:
    """Return the first cause of an error as one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _drop_made_biases(model: Any) -> None:
    """Remove the zero bias that the exporter adds to a Conv without bias; in 3-D its shape is wrong, (C, 2)."""
    for node in model.graph.all_nodes():
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) == 3 else None
        if bias is not None and bias.producer() is not None and bias.producer().op_type == "Expand":
            node.resize_inputs(2)


def _with_scores(spec: ModelSpec, model: Any) -> ModelSpec:
    """Return the spec with `scores`, read from the graph if the spec does not define it."""
    if spec.scores or not tasks.find(spec.task).has_classes:
        return spec
    nodes = [node for node in model.graph.all_nodes() if node.inputs and node.inputs[0] is not None]
    plain = [(node.op_type, node.inputs[0].name, [value.name for value in node.outputs]) for node in nodes]
    return replace(spec, scores=scores(spec.output_names[0], plain)[0])


def _clean(model: Any, spec: ModelSpec) -> None:
    """Remove torch's metadata of nodes (stack traces with paths of this machine) and write the spec."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props[SPEC_KEY] = spec.to_json()
    model.graph.name = spec.name


def _save(program: Any, path: Path, external_data: bool) -> None:
    """Write into a folder beside the target, then move: the weights first, so that a model never lacks its weights."""
    with workplace(path) as folder:
        with quiet():
            program.save(folder / path.name, external_data=external_data)
        for file in sorted(folder.iterdir(), key=lambda one: one.name == path.name):
            file.replace(path.parent / file.name)
