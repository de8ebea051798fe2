"""The kernels of ResNet-50's engine, as the builder listed them."""

import csv
from dataclasses import replace
from pathlib import Path

from edgesmith.runtime.engines.cost import Work

FILE = Path(__file__).parents[1] / "data" / "resnet50-fp16-sm86-kernels.csv"


def resnet50_kernels(precision="int8"):
    """The kernels of ResNet-50: an FP16 engine's list, at INT8 with half the bytes, as standard TensorRT fuses them."""
    with FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    items = [Work(str(at), row["kind"], "fp16", *(int(row[key]) for key in ("operations", "activation_bytes",
             "constant_bytes")), row["dense"] == "1") for at, row in enumerate(rows)]  # fmt: skip
    if precision == "fp16":
        return items
    return [
        replace(x, precision="int8", activation_bytes=x.activation_bytes // 2, constant_bytes=x.constant_bytes // 2)
        for x in items
    ]
