"""A bundle as a Triton Inference Server model repository: the network, its preprocessing, and an ensemble of both.

    <name>/config.pbtxt, 1/model.onnx or 1/model.plan, labels.txt
    <name>_preprocess/config.pbtxt, 1/model.py and a copy of the runtime's preprocessing
    <name>_ensemble/config.pbtxt, 1/      an image, uint8 (H, W, 3), in; the network's outputs out

An engine of TensorRT-RTX cannot be served: Triton's TensorRT backend loads only standard engines.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..batch_axes import axes
from ..common.durable import swap
from ..common.escaping import for_protobuf
from ..common.files import workplace
from ..common.progress import note
from ..errors import UsageError
from ..outputs import STAMP, claim
from ..selection.candidates import open_artefact

if TYPE_CHECKING:
    from ..backends._base import Session, Tensor
    from ..bundle.bundle import Bundle
    from ..bundle.manifest import Artefact
    from ..spec import ModelSpec

LARGEST_BATCH = 32
QUEUE_DELAY_US = 500
TYPES = {
    "float32": "TYPE_FP32", "float16": "TYPE_FP16", "float64": "TYPE_FP64", "int64": "TYPE_INT64",
    "int32": "TYPE_INT32", "int16": "TYPE_INT16", "int8": "TYPE_INT8", "uint16": "TYPE_UINT16", "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}  # fmt: skip
COMMON = ("__init__", "durable", "files", "names", "packages", "plugins", "proportion", "size_range")
# A spec is read with its task, and a task with what it draws and judges by.
CARRIED = (
    *(f"{folder}/{path.name}" for folder in ("images", "tasks")
      for path in sorted((Path(__file__).parents[1] / folder).glob("*.py"))),
    *(f"common/{name}.py" for name in COMMON),
    "errors.py", "spec.py",
)  # fmt: skip
MODEL = '''"""Preprocessing for Triton's Python backend: uint8 images in, the network's input out."""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from edgesmith_runtime.images.preprocess import apply
from edgesmith_runtime.spec import ModelSpec

SPEC = ModelSpec.from_json((Path(__file__).parent / "spec.json").read_text(encoding="utf-8"))


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            try:
                images = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
                batch = apply(list(images if images.ndim == 4 else images[None]), SPEC)
                tensor = pb_utils.Tensor(SPEC.input_name, batch)
                responses.append(pb_utils.InferenceResponse(output_tensors=[tensor]))
            except Exception as error:
                problem = pb_utils.TritonError(str(error))
                responses.append(pb_utils.InferenceResponse(output_tensors=[], error=problem))
        return responses
'''


def write_triton(bundle: Bundle, target: str | Path, precision: str = "fp32", *, overwrite: bool = False) -> Path:
    """Write the three models into a model repository; other models in it are not changed.

    A network that takes no images (`spec.takes_images`) is written alone, which a note says.

    Args:
        bundle: The bundle to serve.
        target: The repository's folder; created if it does not exist.
        precision: Precision of the ONNX file to serve; "int8" means the one for the CPU.
        overwrite: Also replace models of these names that Edgesmith did not write.

    Raises:
        UsageError: The bundle has no ONNX file of that precision, or the path has a model that Edgesmith did not write.
        NotAvailable: onnxruntime, which reads the shapes, is not installed.
    """
    target, name = Path(target), bundle.spec.name
    endings = ("", "_preprocess", "_ensemble") if bundle.spec.takes_images else ("",)
    for ending in endings:
        claim(target / (name + ending), "triton", overwrite=overwrite)
    artefact = _chosen(bundle, precision)
    with open_artefact(bundle, artefact, "ort", threads=1) as session:
        inputs, outputs, batch = session.inputs, session.outputs, _batch(session, bundle.spec)
    with workplace(target / name) as work:
        _network(work / name, bundle, artefact, inputs, outputs, batch)
        if bundle.spec.takes_images:
            _preprocess(work / f"{name}_preprocess", bundle, inputs[0], batch)
            _ensemble(work / f"{name}_ensemble", bundle, inputs[0], outputs, batch)
        else:
            note(f"{name} takes no images: written without preprocessing and ensemble")
        for ending in endings:
            swap(work / (name + ending), target / (name + ending))
    return target


def _batch(session: Session, spec: ModelSpec) -> int:
    """Return the largest batch that Triton may join, 0 where the batch is not a free first axis of every tensor."""
    free = all(tensor.shape[:1] == (None,) for tensor in session.inputs)
    return LARGEST_BATCH if free and set(axes(session, spec).values()) == {0} else 0


def _chosen(bundle: Bundle, precision: str) -> Artefact:
    files = [a for a in bundle.artefacts if a.role == "onnx" and a.precision == precision]
    if not files:
        known = sorted({a.precision for a in bundle.artefacts if a.role == "onnx"})
        raise UsageError(f"the bundle has no ONNX file in {precision!r}", expected=", ".join(known) or "an ONNX file")
    return min(files, key=lambda a: ("generic", "ort-x86").index(a.target) if a.target in ("generic", "ort-x86") else 9)


def _network(
    folder: Path, bundle: Bundle, artefact: Artefact, inputs: Sequence[Tensor], outputs: Sequence[Tensor], batch: int
) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(bundle.content(artefact.path))
    tensors = [_tensor(tensor, batch) for tensor in outputs]
    if bundle.spec.labels:
        (folder / "labels.txt").write_text("\n".join(bundle.spec.labels) + "\n", encoding="utf-8")
        tensors[0]["label_filename"] = "labels.txt"
    config = {
        "name": bundle.spec.name,
        "platform": "onnxruntime_onnx",
        "max_batch_size": batch,
        "input": [_tensor(tensor, batch) for tensor in inputs],
        "output": tensors,
        **({"dynamic_batching": {"max_queue_delay_microseconds": QUEUE_DELAY_US}} if batch else {}),
    }
    _write(folder, config)


def _preprocess(folder: Path, bundle: Bundle, tensor: Tensor, batch: int) -> None:
    package = folder / "1" / "edgesmith_runtime"
    package.mkdir(parents=True)
    for name in CARRIED:
        (package / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(Path(__file__).parents[1] / name, package / name)
    (package / "__init__.py").write_text('"""The part of the runtime that makes a network\'s input."""\n')
    (folder / "1" / "model.py").write_text(MODEL, encoding="utf-8")
    # What the outputs mean is nothing to the preprocessing, so no task's file is needed for it.
    spec = replace(bundle.spec, task="features", decoder={})
    (folder / "1" / "spec.json").write_text(spec.to_json() + "\n", encoding="utf-8")
    config = {
        "name": f"{bundle.spec.name}_preprocess",
        "backend": "python",
        "max_batch_size": batch,
        "input": [_image()],
        "output": [_tensor(tensor, batch)],
    }
    _write(folder, config)


def _ensemble(folder: Path, bundle: Bundle, tensor: Tensor, outputs: Sequence[Tensor], batch: int) -> None:
    (folder / "1").mkdir(parents=True)
    name = bundle.spec.name
    prepared = {"model_name": f"{name}_preprocess", "model_version": -1,
                "input_map": {"image": "image"}, "output_map": {tensor.name: "prepared"}}  # fmt: skip
    network = {"model_name": name, "model_version": -1, "input_map": {tensor.name: "prepared"},
                "output_map": {output.name: output.name for output in outputs}}  # fmt: skip
    config = {
        "name": f"{name}_ensemble",
        "platform": "ensemble",
        "max_batch_size": batch,
        "input": [_image()],
        "output": [_tensor(output, batch) for output in outputs],
        "ensemble_scheduling": {"step": [prepared, network]},
    }
    _write(folder, config)
    (folder / "1" / ".keep").write_text("", encoding="utf-8")


def _image() -> dict[str, Any]:
    return {"name": "image", "data_type": Symbol("TYPE_UINT8"), "dims": [-1, -1, 3]}


def _tensor(tensor: Tensor, batch: int) -> dict[str, Any]:
    dims = [-1 if dim is None else dim for dim in tensor.shape]
    return {"name": tensor.name, "data_type": Symbol(TYPES[tensor.dtype]), "dims": dims[1:] if batch else dims}


class Symbol(str):
    """An enumeration value, which protobuf text writes without quotes."""

    __slots__ = ()


def _write(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / "config.pbtxt").write_text(f"# {STAMP}\n{text(config)}", encoding="utf-8")


def text(config: Mapping[str, Any], indent: str = "") -> str:
    """Return a message in protobuf's text format: dictionaries are messages, lists repeat, `*_map` are maps."""
    lines = []
    for key, value in config.items():
        if key.endswith("_map"):
            pairs = [(for_protobuf(name), for_protobuf(other)) for name, other in value.items()]
            lines += [f"{indent}{key} {{ key: {name} value: {other} }}\n" for name, other in pairs]
            continue
        many = value if isinstance(value, list) and value and isinstance(value[0], Mapping) else [value]
        lines += [_field(key, one, indent) for one in many]
    return "".join(lines)


def _field(key: str, value: Any, indent: str) -> str:
    if isinstance(value, Mapping):
        return f"{indent}{key} {{\n{text(value, indent + '  ')}{indent}}}\n"
    if isinstance(value, list):
        return f"{indent}{key}: [{', '.join(map(str, value))}]\n"
    if isinstance(value, str) and not isinstance(value, Symbol):
        return f"{indent}{key}: {for_protobuf(value)}\n"
    return f"{indent}{key}: {value}\n"
