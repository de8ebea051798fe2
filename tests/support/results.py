"""Runs with made-up samples, for tests of tables and pages; nothing of them is ever shown as a measurement."""

import dataclasses

import numpy as np

from edgesmith.bench.measure import environment
from edgesmith.bench.result import Reading, Result, Run, Subject

NETS = {
    "mobilenetv2": ("fp32", 0.0200, 14.0e6, 71.88),
    "mobilenet_v3_small": ("fp32", 0.0090, 10.2e6, 67.67),
    "shufflenetv2": ("int8", 0.0070, 2.6e6, 69.36),
    "resnet50": ("fp32", 0.1200, 102.0e6, 76.13),
}


PARTS = {"weights_bytes": 14e6, "session_bytes": 6e6, "arena_bytes": 5e6, "transient_bytes": 2e6}


def footprint(seconds):
    """A staircase of resident sizes, as a process that starts shows."""
    stages = ("interpreter", "import", "load", "first_call", "calls")
    return tuple(
        {"stage": stages[step // 4], "seconds": 0.05 * step + seconds, "resident_bytes": 4_500_000 * (step + 1)}
        for step in range(20)
    )


def result(model, form, seconds, size, top1, seed, level=1.0):
    rng = np.random.default_rng(seed)
    groups = tuple(tuple(level * seconds * (1 + rng.exponential(0.02, 40))) for _ in range(3))
    stages = {f"{name}_bytes": float(mb) * 1e6 for name, mb in
              zip(("interpreter", "import", "load", "first_call"), (37, 19, 20, 5), strict=True)}  # fmt: skip
    starts = {f"{name}_s": value for name, value in
              zip(("interpreter", "import", "load", "first_call"), (0.2, 0.1, 0.05, 0.01), strict=True)}  # fmt: skip
    readings = {
        "latency": Reading("latency", {"p50_s": float(np.median(groups)), "p99_s": float(np.percentile(groups, 99))},
                           {"p50_s": (seconds * 0.99, seconds * 1.01)}, groups),
        "memory": Reading("memory", {"peak_bytes": 81e6, **stages, **PARTS}, rows=footprint(seconds)),
        "cold_start": Reading("cold_start", {**starts, "total_s": 0.36}),
        "size": Reading("size", {"file_bytes": size}),
        "accuracy": Reading("accuracy", missing="no labelled images were given"),
    }  # fmt: skip
    subject = Subject(
        model, f"{model}.onnx", form, published_top1_percent=top1, published_dataset="imagenet", weights="imagenet",
        input_shape=(3, 224, 224),
    )  # fmt: skip
    return Result(subject, readings)


def run(seed=0, level=1.0, names=tuple(NETS), when="2026-01-01T00:00:00+00:00"):
    made = [result(name, *NETS[name], seed + index, level) for index, name in enumerate(names)]
    return Run(when, "edgesmith bench", environment.here(), tuple(made))


def with_layers(**more):
    """A run with operators and ceilings in it."""
    made = run(**more)
    rows = tuple(
        {
            "layer": f"conv{index}",
            "op": kind,
            "dtype": "float",
            "shape": "1x8x4x4",
            "seconds": 1e-3 * index,
            "macs": 1000,
        }
        for index, kind in enumerate(("Conv", "Relu", "Conv"), 1)
    )
    limits = {
        "limit_s": 0.001,
        "run_macs_count": 3e8,
        "peak_macs_per_s": 4e10,
        "peak_bytes_per_s": 8e9,
        "share_ratio": 0.5,
    }
    told = {
        "layers": Reading("layers", {"sum_s": 0.006}, rows=rows),
        "roofline_share": Reading("roofline_share", limits),
    }
    results = [dataclasses.replace(one, readings={**one.readings, **told}) for one in made.results]
    return dataclasses.replace(made, results=tuple(results))
