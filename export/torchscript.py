"""Torch's older exporter, which traces: used if the dynamo exporter or the parity check of its file fails.

A trace contains only the branches that the example took: the parity check, with two batch sizes and other inputs,
detects a wrong trace.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ..optimize.graph import spec_metadata
from ..runtime import tasks
from ..runtime.common.files import workplace
from ..runtime.common.packages import need
from ..runtime.errors import ModelError
from ..runtime.spec import ModelSpec
from .outputs import arranged
from .to_onnx import EXTERNAL_DATA_ABOVE, example_inputs, free_axes, in_a_row, quiet, reason

if TYPE_CHECKING:
    import torch

NEWEST_OPSET = 20


def write_traced(
    module: torch.nn.Module, spec: ModelSpec, path: Path, *, dynamic_batch: bool = False, opset: int = 18
) -> ModelSpec:
    """Like `to_onnx.write_onnx`, by tracing; an opset above 20 becomes 20.

    Raises:
        ModelError: torch cannot trace the module; the message has its reason.
    """
    torch, was_training = need("torch"), module.training
    examples = example_inputs(spec, 2 if dynamic_batch else 1)
    axes = _free_axes(module, spec, examples) if dynamic_batch else {}
    for one in spec.inputs:
        axes[one.name] = axes.get(one.name, {}) | {at: f"{one.name}_{at}" for at in free_axes(spec, one.name)}
    with workplace(path) as folder:
        place = folder / path.name
        try:
            with in_a_row(module.eval(), examples, spec.output_names), quiet():
                torch.onnx.export(
                    module, examples, place, dynamo=False, opset_version=min(opset, NEWEST_OPSET),
                    input_names=[one.name for one in spec.inputs], output_names=list(spec.output_names),
                    dynamic_axes=axes,
                )  # fmt: skip
        except Exception as error:
            do = "look at the line of the module that the message names"
            raise ModelError(f"torch cannot trace {spec.name}", got=reason(error), do=do) from error
        finally:
            module.train(was_training)
        model = onnx.load(place)
        for node in model.graph.node:
            node.ClearField("doc_string")
        spec = _with_scores(spec, model)
        del model.metadata_props[:]
        spec_metadata.write(model, spec)
        model.graph.name = spec.name
        for part in folder.iterdir():
            part.unlink()
        data = path.name + ".data" if model.ByteSize() > EXTERNAL_DATA_ABOVE else None
        onnx.save(model, place, save_as_external_data=data is not None, location=data)
        for part in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
            part.replace(path.parent / part.name)
    return spec


def _free_axes(
    module: torch.nn.Module, spec: ModelSpec, examples: tuple[torch.Tensor, ...]
) -> dict[str, dict[int, str]]:
    with need("torch").no_grad():
        outputs = arranged(module(*examples), spec.output_names)
    names = [one.name for one in spec.inputs]
    names += [name for name, output in zip(spec.output_names, outputs, strict=True) if output.shape[:1] == (2,)]
    return {name: {0: "batch"} for name in names}


def _with_scores(spec: ModelSpec, model: onnx.ModelProto) -> ModelSpec:
    if spec.scores or not tasks.find(spec.task).has_classes:
        return spec
    return replace(spec, scores=spec_metadata.model_scores(model, spec.output_names[0])[0])
