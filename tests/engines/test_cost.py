"""The cost model: work counted by hand, coefficients refitted from published latencies, and its table of GPUs."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.bench.devices import fit
from edgesmith.bench.devices.catalogue import catalogue
from edgesmith.runtime.engines import cost
from edgesmith.runtime.engines.kernels import Kernel, KernelTensor
from edgesmith.runtime.errors import UsageError
from support.kernels import resnet50_kernels

WORST = {"orin": 0.10, "discrete": 0.26}


def points(family):
    """The published latencies of ResNet-50 in INT8, with an engine's kernels."""
    rows = [row for row in fit.published_latencies() if (row.network, row.precision) == ("resnet50", "int8")]
    every = [fit.Point(resnet50_kernels(), catalogue()[row.device].gpu, row.batch, row.seconds) for row in rows]
    return [point for point in every if point.gpu.family == family]


def test_the_list_is_resnet50s():
    items = resnet50_kernels("fp16")
    assert len(items) == 57
    assert sum(item.operations for item in items) == pytest.approx(2 * 4.09e9, rel=0.02)
    assert sum(item.constant_bytes for item in items) == pytest.approx(2 * 25.5e6, rel=0.02)


@pytest.mark.parametrize("family", WORST)
def test_the_fit_is_as_good_as_the_page_says(family):
    errors = [cost.estimate_s(x.works, x.gpu, x.batch) / x.seconds - 1 for x in points(family)]
    assert len(errors) >= 4
    assert 0.5 * WORST[family] < max(map(abs, errors)) < WORST[family]


@pytest.mark.parametrize("family", WORST)
def test_the_kernels_alone_give_nearly_the_same_coefficients(family):
    """The constants are fitted on layers; the kernels of the one engine that is known must not ask for others."""
    a, b = fit.fit_coefficients([*points("orin"), *points("discrete")])[family]
    assert (a, b) == pytest.approx(cost.COEFFICIENTS[family], rel=0.12)


def test_another_gpus_latencies_give_other_coefficients():
    mixed = [replace(x, gpu=replace(cost.find_gpu("A2"), family="orin")) for x in points("orin")]
    assert fit.fit_coefficients(mixed)["orin"] != pytest.approx(cost.COEFFICIENTS["orin"], rel=0.1)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.5, 4), st.floats(1e-6, 2e-5), st.floats(1e-6, 2e-5))
def test_a_planted_law_is_found(a, b, other):
    """One `a`, a launch cost for each family: they come back, and stand for a family without points."""
    items, law = resnet50_kernels(), {"discrete": (a, b), "orin": (a, other)}
    made = [
        fit.Point(items, gpu, n, law[gpu.family][0] * sum(cost.rooflines_s(items, gpu, n)) + law[gpu.family][1] * 57)
        for gpu, n in ((cost.find_gpu(name), n) for name in ("A2", "L4", "Orin NX 16GB") for n in (1, 16))
    ]
    solved = fit.fit_coefficients(made)
    for family, expected in law.items():
        assert solved[family] == pytest.approx(expected, rel=1e-6)
    assert solved[fit.COMMON] == pytest.approx((a, (b * other) ** 0.5), rel=1e-6)


def test_a_kernel_is_its_roofline_and_one_launch_at_the_clock_it_runs_at():
    item, gpu = resnet50_kernels()[5], cost.find_gpu("Orin NX 16GB")
    a, b = cost.COEFFICIENTS["orin"]
    assert cost.kernel_s(item, gpu) == pytest.approx(a * max(cost.limits_s(item, gpu)) + b)
    assert cost.kernel_s(item, replace(gpu, slowdown=3.0)) == pytest.approx(a * cost.roofline_s(item, gpu) + 3 * b)


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
    item = resnet50_kernels()[5]
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
