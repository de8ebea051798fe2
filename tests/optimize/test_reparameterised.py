"""RepVGG and MobileOne in training form: the passes leave one convolution per block, that of the papers' conversion."""

import copy
from decimal import Decimal

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgesmith.export.to_onnx import export
from edgesmith.models import catalog
from edgesmith.models.zoo import mobileone, repvgg
from edgesmith.optimize.optimizer import optimize
from edgesmith.runtime.backends import ort
from edgesmith.runtime.verify import relative_error
from support.graphs import ops
from support.seeded import fill, image

torch.set_num_threads(1)

# name -> millions of parameters and of multiply-adds of the merged network, as the papers' tables print them
PUBLISHED = {
    "repvgg_a0": ("8.30", "1.4e3"), "repvgg_a1": ("12.78", "2.4e3"), "repvgg_a2": ("25.49", "5.1e3"),
    "repvgg_b0": ("14.33", "3.1e3"), "repvgg_b1": ("51.82", "11.8e3"), "mobileone_s0": ("2.1", "275"),
    "mobileone_s1": ("4.8", "825"), "mobileone_s2": ("7.8", "1299"), "mobileone_s3": ("10.1", "1896"),
    "mobileone_s4": ("14.8", "2978"),
}  # fmt: skip
# Small ones: name -> (variant, what `build` takes besides, blocks)
EXCITED = {"widths": (0.25, 0.25, 0.25, 0.25), "branches": 4, "excited": (0, 0, 1, 1)}
TINY = {"repvgg": ("repvgg_a0", {"width": 0.125, "last": 0.25}, 6), "mobileone": ("mobileone_s4", EXCITED, 11)}


def kernel_and_bias(branch, kernel, groups):
    """Return a branch as a convolution of the block's kernel: W g / s, b - m g / s (RepVGG's equation 3)."""
    norm = branch if isinstance(branch, nn.BatchNorm2d) else branch.bn
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    if isinstance(branch, nn.BatchNorm2d):  # an identity is a 1x1 convolution whose kernel is the identity matrix
        width = len(factor) // groups
        weight = torch.eye(width, device=factor.device, dtype=factor.dtype).repeat(groups, 1)[:, :, None, None]
    else:
        weight = branch.conv.weight
    room = (kernel - weight.shape[-1]) // 2
    weight = nn.functional.pad(weight * factor[:, None, None, None], [room] * 4)
    return weight, norm.bias - norm.running_mean * factor


def merged(block):
    """Return the convolution that a block is."""
    largest = block.conv_kxk[0].conv if isinstance(block.conv_kxk, nn.ModuleList) else block.conv_kxk.conv
    kernel, groups = largest.kernel_size[0], largest.groups
    branches = [*(block.conv_kxk if isinstance(block.conv_kxk, nn.ModuleList) else [block.conv_kxk]), block.identity]
    branches.append(getattr(block, "conv_scale", None) or getattr(block, "conv_1x1", None))
    parts = [kernel_and_bias(branch, kernel, groups) for branch in branches if branch is not None]
    conv = nn.Conv2d(
        largest.in_channels, largest.out_channels, kernel, largest.stride, kernel // 2, groups=groups, device="meta"
    )
    weights, biases = zip(*parts, strict=True)
    conv.weight, conv.bias = nn.Parameter(sum(weights)), nn.Parameter(sum(biases))
    return conv


@torch.no_grad()
def converted(module):
    """Return a copy of a network with one convolution, its gate if it has one, and ReLU in place of each block."""
    result = copy.deepcopy(module)
    for name, block in module.named_modules():
        if hasattr(block, "conv_kxk"):
            parent, _, key = name.rpartition(".")
            gate = copy.deepcopy(getattr(block, "attn", nn.Identity()))
            setattr(result.get_submodule(parent), key, nn.Sequential(merged(block), gate, nn.ReLU()))
    return result


def off(count, printed):
    """Return by how much a count differs from a printed figure beyond 1 % and half of its last digit."""
    last = 10 ** Decimal(printed).as_tuple().exponent
    return max(0, abs(count - float(printed)) - 0.01 * count - 0.5 * last)


def test_a_figure_of_another_network_is_off():
    assert (off(2.078504, "2.1"), off(1361, "1.4e3")) == (0, 0)
    assert off(2.2, "2.1") > 0
    assert off(1520, "1.4e3") > 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_converted_network_has_the_papers_figures(name):
    with torch.device("meta"):
        module = catalog.build_network(name).eval()
    result = converted(module)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        result(torch.zeros(1, 3, 224, 224, device="meta"))
    counts = sum(one.numel() for one in result.parameters()), counter.get_total_flops() / 2
    assert [off(count / 1e6, printed) for count, printed in zip(counts, PUBLISHED[name], strict=True)] == [0, 0]


@pytest.mark.parametrize("case", TINY)
def test_each_block_is_one_convolution_and_computes_what_the_paper_s_does(case, tmp_path, monkeypatch):
    monkeypatch.setitem(repvgg.NETWORK, "A", (2, 1, 1, 1))
    monkeypatch.setattr(mobileone, "NETWORK", ((64, 2), (128, 1), (256, 1), (512, 1)))
    name, changes, blocks = TINY[case]
    module = catalog.build_network(name, 10, **changes).eval()
    with torch.no_grad():
        fill(module)
    spec = catalog.network_spec(name, "digits")
    source, result = tmp_path / "source.onnx", tmp_path / "result.onnx"
    export(module, spec, source)
    report = optimize(source, result)
    assert report.check.verdict == "equal"
    gates = sum(isinstance(one, mobileone.SqueezeExcite) for one in module.modules())
    left = [op for op in ops(result) if op in ("Conv", "Add", "Sum", "BatchNormalization")]
    assert left == ["Conv"] * (blocks + 2 * gates)
    x = image(spec.input_shape)
    with torch.no_grad():
        double = module.double()
        expected = converted(double)(x.double()).numpy()
        assert relative_error(double(x.double()).numpy(), expected) < 1e-12
    for path in (source, result):
        with ort.open(path, threads=1, optimise=False) as session:
            answer = next(iter(session.run({spec.input_name: x.numpy()}).values()))
        assert relative_error(answer, expected) < 1e-5


@pytest.mark.parametrize("branch", ["identity", "conv_1x1"])
def test_a_conversion_that_leaves_a_branch_out_is_another_network(branch):
    module = catalog.build_network("repvgg_a0", 10, width=0.125, last=0.25).eval()
    with torch.no_grad():
        fill(module)
        x, expected = image((3, 64, 64)), converted(module)(image((3, 64, 64)))
        setattr(module.stages[0][1], branch, None)
        assert relative_error(converted(module)(x).numpy(), expected.numpy()) > 1e-3
