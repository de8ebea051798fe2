"""Placement of INT8 by the cost model: against brute force, and its kernel counts against real builds."""

from itertools import chain as flatten
from itertools import combinations

import pytest

from edgesmith.optimize.trt.int8_placement import Chain, kernels_of, place, weighted_nodes
from edgesmith.optimize.trt.mixed_precision import restore_float_nodes
from edgesmith.runtime.engines import cost
from edgesmith.runtime.engines.kernels import Kernel, KernelTensor
from support.engine_graphs import saved, small_net

SLOW = cost.Gpu("slow", "8.6", "discrete", 1.0, 2.0, 4.0, 20.0, 0.0)


def conv(at, channels, size=14, kernel=3, group=1, residual=""):
    """The FP16 kernel of one convolution in a chain: reads t{at}, writes t{at + 1}."""
    into = [KernelTensor(f"t{at}", (1, channels, size, size), "fp16")]
    into += [KernelTensor(residual, (1, channels, size, size), "fp16")] if residual else []
    weight = KernelTensor("w", (channels, channels // group, kernel, kernel), "fp16")
    out = KernelTensor(f"t{at + 1}", (1, channels, size, size), "fp16")
    return Kernel(f"conv{at}_U", "correlation", tuple(into), (weight,), (out,), (f"conv{at}",))


def every_subset(items):
    return map(set, flatten.from_iterable(combinations(items, size) for size in range(len(items) + 1)))


CHAINS = {
    "growing": [conv(at, 16 << at) for at in range(6)],
    "big and small": [conv(at, 512 if at % 2 else 8) for at in range(8)],
    "two residuals": [conv(at, 256, residual=f"t{at - 1}" if at in (2, 5) else "") for at in range(7)],
}


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("case", CHAINS)
def test_it_finds_the_best_subset(case, per_tensor):
    kernels = CHAINS[case]
    model = Chain(kernels, SLOW, 1, per_tensor)
    best = min(model.total(some)[0] for some in every_subset(model.dense))
    found = place(kernels, [f"conv{at}" for at in range(len(kernels))], SLOW, per_tensor=per_tensor)
    assert found.estimates_s["mixed"] == pytest.approx(best)
    assert found.estimates_s["mixed"] <= min(found.estimates_s["fp16"], found.estimates_s["int8"])


def test_gain_is_the_difference_of_totals():
    model = Chain(CHAINS["two residuals"], SLOW, 4, False)
    for before in every_subset(model.dense[:4]):
        for flip in ({0}, {2, 3}, {6}):
            difference = model.total(before)[0] - model.total(before ^ flip)[0]
            assert model.gain_s(flip, before) == pytest.approx(difference, abs=1e-12)


def test_a_depthwise_convolution_stays_float():
    found = place([conv(0, 512), conv(1, 512, group=512), conv(2, 512)], ["conv0", "conv1", "conv2"], SLOW)
    assert "conv1" in found.floats
    assert set(found.int8) == {"conv0", "conv2"}


def test_small_convolutions_stay_float_and_it_says_so():
    found = place([conv(at, 8) for at in range(3)], ["conv0", "conv1", "conv2"], cost.find_gpu("RTX 5090"))
    assert found.int8 == ()
    assert found.verdict.startswith("INT8 is slower than FP16 on RTX 5090 at batch 1: fp16 ")
    assert found.to_dict()["verdict"] == found.verdict


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("floats", [["depthwise"], ["depthwise", "stem"], ["depthwise", "pointwise", "dense"]])
def test_the_predicted_kernels_are_those_of_a_real_build(floats, per_tensor, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings")
    from edgesmith.runtime.engines.build import build_engine

    half, full, quantised = (saved(small_net(kind, head="none"), tmp_path / kind) for kind in ("fp16", "fp32", "int8"))
    built = build_engine(half, tmp_path / "h.engine", precision="fp16")
    listed = kernels_of(built.kernels)
    assert len(listed) == built.attestation.kernels
    model = Chain(listed, SLOW, 1, per_tensor)
    chosen = {at for at in model.dense if not set(listed[at].nodes) & set(floats)}
    restore_float_nodes(full, quantised, floats, tmp_path / "m.onnx", per_tensor=per_tensor)
    mixed = build_engine(tmp_path / "m.onnx", tmp_path / "m.engine", precision="int8")
    assert mixed.attestation.counts == {"int8": 4 - len(floats), "fp16": len(floats)}
    assert abs(model.total(chosen)[1] - mixed.attestation.kernels) <= 1


def test_weighted_nodes_are_listed(tmp_path):
    path = saved(small_net(), tmp_path / "n.onnx")
    assert weighted_nodes(path) == ["stem", "depthwise", "pointwise", "dense", "fc"]
