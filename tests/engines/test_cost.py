"""The cost model: work counted by hand, coefficients refitted from published latencies, and its table of GPUs."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.runtime.engines import cost
from edgesmith.runtime.engines.kernels import Kernel, KernelTensor
from edgesmith.runtime.errors import UsageError

DATA = Path(__file__).parents[1] / "data" / "resnet50-fp16-sm86-kernels.csv"
# MLPerf Inference, ResNet-50 INT8, TensorRT: (GPU, batch, seconds), v2.0 to v3.1, as submitted by NVIDIA.
POINTS = {
    "orin": [("AGX Orin 64GB", 1, 0.636e-3), ("AGX Orin 64GB", 8, 2.164e-3), ("Orin NX 16GB", 1, 1.079e-3),
             ("Orin NX 16GB", 8, 5.080e-3)],
    "discrete": [("L4", 1, 0.346e-3), ("L4", 64, 4.968e-3), ("A2", 1, 0.700e-3), ("A2", 64, 21.076e-3),
                 ("A100 80GB SXM", 1, 0.455e-3), ("A100 80GB SXM", 256, 6.041e-3), ("H100 SXM", 256, 2.892e-3)],
}  # fmt: skip
WORST = {"orin": 0.06, "discrete": 0.20}


def resnet50(precision="int8"):
    """The kernels of ResNet-50: an FP16 engine's list, at INT8 with half the bytes, as standard TensorRT fuses them."""
    with DATA.open(newline="") as file:
        rows = list(csv.DictReader(file))
    items = [cost.Work(str(at), row["kind"], "fp16", *(int(row[key]) for key in ("operations", "activation_bytes",
             "constant_bytes")), row["dense"] == "1") for at, row in enumerate(rows)]  # fmt: skip
    if precision == "fp16":
        return items
    return [
        replace(x, precision="int8", activation_bytes=x.activation_bytes // 2, constant_bytes=x.constant_bytes // 2)
        for x in items
    ]


def points(family):
    return [(cost.find_gpu(name), batch, seconds) for name, batch, seconds in POINTS[family]]


def test_the_list_is_resnet50s():
    items = resnet50("fp16")
    assert len(items) == 57
    assert sum(item.operations for item in items) == pytest.approx(2 * 4.09e9, rel=0.02)
    assert sum(item.constant_bytes for item in items) == pytest.approx(2 * 25.5e6, rel=0.02)


@pytest.mark.parametrize("family", POINTS)
def test_the_coefficients_are_the_fit(family):
    assert cost.fit_constants(resnet50(), points(family)) == pytest.approx(cost.COEFFICIENTS[family], rel=0.01)


@pytest.mark.parametrize("family", POINTS)
def test_the_fit_is_as_good_as_the_page_says(family):
    errors = [cost.estimate_s(resnet50(), gpu, batch) / seconds - 1 for gpu, batch, seconds in points(family)]
    assert 0.5 * WORST[family] < max(map(abs, errors)) < WORST[family]


def test_another_gpus_latencies_give_other_coefficients():
    mixed = [(cost.find_gpu("A2"), batch, seconds) for _, batch, seconds in POINTS["orin"]]
    assert cost.fit_constants(resnet50(), mixed) != pytest.approx(cost.COEFFICIENTS["orin"], rel=0.1)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.5, 4), st.floats(1e-6, 2e-5))
def test_a_planted_law_is_found(a, b):
    items = resnet50()
    made = [
        (gpu, n, a * sum(cost.rooflines_s(items, gpu, n)) + b * len(items))
        for gpu, n in ((cost.find_gpu("A2"), 1), (cost.find_gpu("A2"), 16), (cost.find_gpu("L4"), 4))
    ]
    assert cost.fit_constants(items, made) == pytest.approx((a, b), rel=1e-6)


def tensor(*dims, dtype="fp16"):
    return KernelTensor("t", dims, dtype)


COUNTED = {
    "3x3": (Kernel("c", "correlation", (tensor(1, 64, 28, 28),), (tensor(32, 64, 3, 3), tensor(1, 32, 1, 1)),
                   (tensor(1, 32, 28, 28),)), 2 * 64 * 9 * 32 * 784, (64 + 32) * 784 * 2, (32 * 64 * 9 + 32) * 2, True),
    "with a residual": (Kernel("c", "correlation", (tensor(1, 8, 4, 4), tensor(1, 64, 4, 4)), (tensor(64, 8, 1, 1),),
                               (tensor(1, 64, 4, 4),)), 2 * 8 * 64 * 16, (8 + 64 + 64) * 16 * 2, 1024, True),
    "depthwise": (Kernel("c", "correlation", (tensor(1, 32, 8, 8),), (tensor(32, 1, 3, 3),), (tensor(1, 32, 8, 8),)),
                  2 * 9 * 32 * 64, 8192, 576, False),
    "RGB": (Kernel("c", "correlation", (tensor(1, 4, 8, 8),), (tensor(32, 4, 3, 3),), (tensor(1, 32, 8, 8),)),
            2 * 36 * 32 * 64, (4 + 32) * 64 * 2, 2304, True),
    "a matrix product": (Kernel("g", "runtime_fusion", (tensor(1, 960, 49),), (tensor(1, 320, 960), tensor(1, 320, 1)),
                                (tensor(1, 320, 49),)), 2 * 960 * 320 * 49, (960 + 320) * 49 * 2, 615040, True),
    "weights dequantised at run time": (
        Kernel("c", "correlation", (tensor(1, 8, 4, 4), tensor(64, 8, 1, 1)), (), (tensor(1, 64, 4, 4),)),
        2 * 8 * 64 * 16, (8 * 16 + 512 + 64 * 16) * 2, 0, True),
    "pointwise": (Kernel("k", "kgen", (tensor(1, 8, 4, 4),), (), (tensor(1, 8, 4, 4, dtype="int8"),)),
                  128, 128 * 3, 0, False),
}  # fmt: skip


@pytest.mark.parametrize("case", COUNTED)
def test_work_is_counted(case):
    kernel, operations, activations, constants, dense = COUNTED[case]
    found = cost.kernel_work(kernel)
    assert (found.operations, found.activation_bytes, found.constant_bytes, found.dense) == (
        operations, activations, constants, dense)  # fmt: skip


def test_a_larger_batch_reads_the_weights_once():
    item = resnet50()[5]
    assert item.times(8).operations == 8 * item.operations
    assert item.times(8).constant_bytes == item.constant_bytes


def test_streams_order_costs_nothing():
    assert cost.kernel_works([Kernel("s", "signal", (), (), ())]) == []


def test_the_table_of_gpus_is_sane():
    assert len(cost.gpus()) >= 10
    for gpu in cost.gpus().values():
        assert gpu.fp32_tflops < gpu.fp16_tflops < gpu.int8_tops
        assert gpu.family in cost.COEFFICIENTS
        assert 10 < gpu.bandwidth_gbs < 10000


def test_a_gpu_is_found_by_any_spelling():
    assert cost.find_gpu("rtx_5090").sm == "12.0"
    with pytest.raises(UsageError, match=r"unknown GPU 'L44'.*did you mean 'L4'"):
        cost.find_gpu("L44")
