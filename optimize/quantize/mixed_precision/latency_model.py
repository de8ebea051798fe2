"""What each layer costs in float and in INT8 on a target: a roofline for each layer.

    t(layer) = the cost model's kernel (`runtime/engines/cost.py`)        int8 on a GPU: + one kernel that requantises

Where the target is this kind of machine, the sums over all layers are set to two measured latencies. It ranks the
configurations of one network on one target.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

import onnx

from ....runtime.engines.cost import BYTES, Gpu, Work, find_gpu, kernel_s
from ...calibration.inputs import Batch, as_feeds
from ...calibration.ort_runs import session
from ...graph.proto_graph import ProtoGraph, attributes
from ...graph.protobuf import copied
from ..targets import ANCHORS, is_tensorrt

# One core of a current CPU, 10^12 operations and 10^9 bytes a second: INT8 at three times the rate of FP32.
CPU = Gpu("CPU core", "", "cpu core", fp32_tflops=0.05, fp16_tflops=0.05, int8_tops=0.15, bandwidth_gbs=10, l2_mb=0)
RUNS = 20


@dataclass(frozen=True)
class Costs:
    """Seconds of each layer in float and in INT8 at batch 1; `measured` where the sums are measured ones."""

    target: str
    float_s: dict[str, float]
    int8_s: dict[str, float]
    float_name: str
    measured: bool = False

    def total(self, floats: Iterable[str]) -> float:
        """Return the seconds of a configuration in which some layers are left in float."""
        left = set(floats)
        return sum(self.float_s[name] if name in left else self.int8_s[name] for name in self.float_s)

    def anchored(self, float_s: float, int8_s: float) -> Costs:
        """Return the same shares with sums that were measured."""
        one, two = float_s / sum(self.float_s.values()), int8_s / sum(self.int8_s.values())
        return replace(
            self,
            float_s={name: one * value for name, value in self.float_s.items()},
            int8_s={name: two * value for name, value in self.int8_s.items()},
            measured=True,
        )


def model_costs(model: onnx.ModelProto, target: str, gpu_name: str = "Orin Nano 8GB") -> Costs:
    """Return the costs of each convolution and matrix product of a float graph by the roofline.

    Raises:
        UsageError: An unknown GPU.
    """
    where, lower = (find_gpu(gpu_name), "fp16") if is_tensorrt(target) else (CPU, "fp32")
    width, floats, integers = BYTES[lower], {}, {}
    for name, work in layer_work(model).items():
        full = replace(work, precision=lower, activation_bytes=work.activation_bytes * width,
                       constant_bytes=work.constant_bytes * width)  # fmt: skip
        floats[name] = kernel_s(full, where)
        integers[name] = kernel_s(replace(work, precision="int8"), where)
        if is_tensorrt(target):
            integers[name] += kernel_s(Work(name, "requantise", "fp16", 0, 3 * work.activation_bytes, 0, False), where)
    return Costs(target, floats, integers, lower.upper())


def layer_work(model: onnx.ModelProto) -> dict[str, Work]:
    """Return the operations of each layer, and its activations and weights in elements, at batch 1."""
    net = ProtoGraph(onnx.shape_inference.infer_shapes(copied(model)))
    infos = (*net.graph.input, *net.graph.value_info, *net.graph.output)
    sizes = {item.name: prod(_dims(item)[1:]) for item in infos if item.type.tensor_type.HasField("shape")}
    works = {}
    for node in net.nodes:
        weight = net.arrays.get(node.input[1]) if node.op_type in ANCHORS else None
        if weight is None or node.output[0] not in sizes:
            continue
        channels = weight.shape[0] if node.op_type == "Conv" else max(sizes[node.output[0]], 1)
        each = 2 * weight.size // max(channels, 1)
        moved = sizes.get(node.input[0], 0) + sizes[node.output[0]]
        dense = attributes(node).get("group", 1) == 1
        works[node.name] = Work(
            node.name, node.op_type, "fp32", each * sizes[node.output[0]], moved, int(weight.size), dense
        )
    return works


def _dims(item: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value if dim.dim_value > 0 else 1 for dim in item.type.tensor_type.shape.dim]


def latencies(models: list[onnx.ModelProto], image: Batch, runs: int = RUNS) -> list[float]:
    """Return the least seconds of each model on one image in ONNX Runtime, one thread, run in turns."""
    sessions = [session(model, optimise=True, threads=1) for model in models]
    least = [float("inf")] * len(sessions)
    for _ in range(runs):
        for at, one in enumerate(sessions):
            started = time.perf_counter()
            one.run(None, as_feeds(models[at], image))
            least[at] = min(least[at], time.perf_counter() - started)
    return least
