"""The files that are measured: a network at its published input with random weights, in each precision, free batch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from edgesmith.export import to_onnx
from edgesmith.export.sources.load import load_zoo
from edgesmith.export.sources.source import find_source
from edgesmith.optimize import optimizer
from edgesmith.optimize.fp16.convert import to_fp16
from edgesmith.optimize.fp16.formats import BF16, FP16
from edgesmith.optimize.quantize.post_training import quantize
from edgesmith.optimize.quantize.report import QuantSettings

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def make_files(name: str, folder: Path, precisions: tuple[str, ...] = PRECISIONS) -> dict[str, Path]:
    """Return a network's files by precision; those that are missing are made, in a minute."""
    files = {precision: folder / f"{name}-{precision}.onnx" for precision in precisions}
    if all(path.is_file() for path in files.values()):
        return files
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        network = load_zoo(find_source(name), "random", Path("weights"))
        raw = to_onnx.export(network.module, network.spec, Path(work) / "raw.onnx", dynamic_batch=True)
        optimizer.optimize(raw, files["fp32"], target="trt")
    rng, shape = np.random.default_rng(0), network.spec.input_shape
    samples = [rng.standard_normal((1, *shape), dtype=np.float32) for _ in range(8)]
    for precision, kind in (("fp16", FP16), ("bf16", BF16)):
        if precision in files:
            to_fp16(files["fp32"], files[precision], samples, kind=kind)
    if "int8" in files:
        options = {"settings": QuantSettings.quick(), "allow_random": True, "min_images": 1}
        quantize(files["fp32"], files["int8"], samples, target="trt", **options)
    return files
