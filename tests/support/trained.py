"""The small trained network that tests use where random weights would not do: ShuffleNet v2 x0.5 on the digits."""

import functools
from pathlib import Path

import torch

from edgesmith.export import to_onnx
from edgesmith.models import catalog, weights
from edgesmith.runtime.spec import ModelSpec

NAME = "shufflenetv2_x0_5"
FILE = Path(__file__).resolve().parents[1] / "data" / f"{NAME}-digits.safetensors"


def trained() -> tuple[torch.nn.Module, ModelSpec]:
    """Return the module, in eval mode, and its spec (input 3x64x64, ten classes)."""
    spec = catalog.network_spec(NAME, str(FILE))
    module = catalog.build_network(NAME, spec.num_classes)
    return module, weights.load_into(module, spec, str(FILE))


@functools.cache
def _exported(folder: Path, dynamic_batch: bool) -> Path:
    module, spec = trained()
    return to_onnx.export(module, spec, folder / "trained.onnx", dynamic_batch=dynamic_batch)


def trained_onnx(folder: Path, *, dynamic_batch: bool = False) -> Path:
    """Export it, BatchNorm kept, into a folder; the same folder gets it once."""
    return _exported(folder, dynamic_batch)
