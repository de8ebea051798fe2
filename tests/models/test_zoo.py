"""Every variant: parameters, multiply-adds, shapes, and the state dicts and outputs of other libraries."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgesmith.export.outputs import named_leaves
from edgesmith.models import catalog, zoo
from support.contracts import planted
from support.seeded import fill, image, keys_digest

torch.set_num_threads(1)
REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "zoo_reference.json").read_text())["networks"]
WITH_OUTPUT = [name for name, row in REFERENCE.items() if "output" in row]
# One network of each family, the smallest, is tested each time; the others are repeats, two minutes of them.
SMALLEST = {
    min((n for n in WITH_OUTPUT if catalog.find_network(n).family == family), key=lambda n: REFERENCE[n]["params"])
    for family in {catalog.find_network(name).family for name in WITH_OUTPUT}
}
QUICK = {name for name in SMALLEST if REFERENCE[name]["params"] < 30_000_000}
# Hundreds of layers each: a second apiece even without numbers.
DEEP = {
    "resnet1202_cifar", "resnet110_cifar", "resnet101", "resnet152", "resnet101_v2", "resnet152_v2",
    "wide_resnet101_2", "resnext101_2x40d", "resnext101_4x24d", "resnext101_8x14d", "resnext101_32x4d",
    "resnext101_32x8d", "resnext101_64x4d", "senet154", "densenet161", "densenet169", "densenet201", "densenet264",
    "inception_v4", "inception_resnet_v2", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5",
    "efficientnet_b6", "efficientnet_b7", "vit_l_16", "vit_h_14", "mobileone_s0", "ghostnetv2_100", "ghostnetv2_130",
    "ghostnetv2_160",
}  # fmt: skip


def each(names):
    return [pytest.param(name, marks=pytest.mark.slow if name in DEEP else ()) for name in names]


def on_meta(name):
    entry = catalog.find_network(name)
    with torch.device("meta"):
        return entry, catalog.build_network(name, entry.classes).eval(), torch.zeros(1, *entry.input_shape)


def multiply_adds(module, x):
    """Count with PyTorch's own counter, which knows nothing of ours."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = module(x)
    return counter.get_total_flops() / 2, out


def problems_of(name):
    """Say what is wrong with a network, built once: its figures, its keys, and that it takes the digits."""
    entry, module, x = on_meta(name)
    return [*figure_problems(entry, module, x), *key_problems(name, module), *digit_problems(entry, module)]


def figure_problems(entry, module, x):
    """Say which figures of a network's table are wrong: outputs, parameters (exact), multiply-adds (within 1 %)."""
    macs, out = multiply_adds(module, x)
    wrong = []
    if entry.row.get("task") in (None, "classify") and out.shape[:2] != (1, entry.classes):
        wrong.append(f"the output is {tuple(out.shape)}")
    if entry.figures.params not in (None, params := sum(one.numel() for one in module.parameters())):
        wrong.append(f"{params} parameters")
    if (published := entry.figures.macs) is not None:
        last_digit = 10 ** (len(str(published)) - len(str(published).rstrip("0")))
        if abs(macs - published) > 0.01 * published + (last_digit / 2 if published >= 10_000_000 else 0):
            wrong.append(f"{macs:.0f} multiply-adds")
    return wrong


def key_problems(name, module):
    """Say whether keys and shapes are others than those of the other library."""
    row = REFERENCE.get(name)
    return [] if row is None or keys_digest(module.state_dict()) == row["keys"] else [f"not {row['origin']}'s keys"]


def digit_problems(entry, module):
    """Say at which sizes a classifier of images does not take the digits."""
    if entry.row.get("task", "classify") != "classify" or len(entry.input_shape) != 3:
        return []
    channels, height, _ = catalog.network_spec(entry.name, "digits").input_shape
    sides = (height,) if entry.row.get("fixed") else (height, int(0.75 * height))
    shapes = {side: module(torch.zeros(1, channels, side, side, device="meta")).shape for side in sides}
    return [f"{tuple(shape)} of {side} pixels" for side, shape in shapes.items() if shape != (1, entry.classes)]


@pytest.mark.parametrize("name", each(catalog.network_names()))
def test_parameters_are_exact_multiply_adds_within_one_per_cent_keys_the_library_s_and_digits_are_taken(name):
    assert problems_of(name) == []


def test_the_deep_ones_and_the_other_library_s_are_there():
    assert set(catalog.network_names()) >= DEEP | set(REFERENCE)


def test_keys_and_outputs_of_another_network_are_found():
    _, module, _ = on_meta("resnet18")
    assert len(key_problems("resnet34", module)) == 1
    assert digit_problems(catalog.find_network("resnet20_cifar"), module) == [
        "(1, 1000) of 32 pixels",
        "(1, 1000) of 24 pixels",
    ]


def test_a_wrong_figure_is_found():
    _, module, x = on_meta("mobilenetv2")
    assert abs(multiply_adds(module, x)[0] / 310e6 - 1) > 0.01


def when(name):
    return () if name in QUICK else pytest.mark.slow if name in SMALLEST else pytest.mark.nightly


@pytest.mark.parametrize("name", [pytest.param(name, marks=when(name)) for name in WITH_OUTPUT])
def test_with_the_same_weights_the_output_is_the_same(name):
    entry, row = catalog.find_network(name), REFERENCE[name]
    module = catalog.build_network(name, entry.classes).eval()
    with torch.no_grad():
        fill(module)
        x = image((entry.input_shape[0], row["side"], row["side"]))
        out = module.double()(x.double()) if row.get("float64") else module(x)
    numbers = torch.cat([one.flatten() for one in named_leaves(out).values()]).double()
    expected = torch.tensor(row["output"], dtype=torch.float64)
    got = numbers[:: row.get("step", 101)]
    assert (got - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max())
    assert numbers.norm().item() == pytest.approx(row["norm"], rel=1e-5)
    assert not torch.allclose(got * 1.001, expected, rtol=1e-5)


def survives_a_round_trip(name):
    first, second = (catalog.build_network(name, 7) for _ in range(2))
    try:
        second.load_state_dict(first.state_dict())
    except RuntimeError:
        return False
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", sorted(QUICK))
def test_a_state_dict_survives_a_round_trip(name):
    assert survives_a_round_trip(name)


FAMILY = '''"""A family of one."""
import itertools
from torch import nn

PAPER = "none"
VARIANTS = {"tiny": {"params": 158, "macs": 3928, "input": (3, 8, 8), "classes": 10}}
COUNT = itertools.count()

def build(num_classes):
    body = [nn.Conv2d(3, 4, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)]
    return nn.Sequential(*body)
'''
BROKEN = {
    "nothing": ("", "", []),
    "a parameter too many": ("158", "159", ["158 parameters"]),
    "multiply-adds of another network": ("3928", "3850", ["3928 multiply-adds"]),
    "a fixed last layer": ("4, num_classes", "4, 5", ["the output is (1, 5)", "133 parameters"]),
    "keys that are others each time": ("return nn.Sequential(*body)",
                                       "return nn.ModuleDict({str(next(COUNT)): nn.Sequential(*body)})", None),
}  # fmt: skip


@pytest.fixture
def planted_family(tmp_path, monkeypatch):
    """Put a file beside the families: `planted_family(text)` makes `tiny` the only network."""

    def plant(text):
        stack.enter_context(planted(zoo, tmp_path / "p", text))
        monkeypatch.setattr(catalog, "_FOLDER", tmp_path / "p")
        forget()

    def forget():
        for cached in (catalog._entries, catalog._index, catalog._tables):
            cached.cache_clear()

    with contextlib.ExitStack() as stack:
        yield plant
        monkeypatch.undo()
        forget()


@pytest.mark.parametrize("case", BROKEN)
def test_a_family_that_breaks_its_contract_is_found(case, planted_family):
    old, new, problems = BROKEN[case]
    planted_family(FAMILY.replace(old, new))
    assert catalog.network_names() == ["tiny"]
    assert survives_a_round_trip("tiny") is (problems is not None)
    if problems is not None:
        assert figure_problems(*on_meta("tiny")) == problems


def test_batch_norm_uses_the_batch_in_training_and_what_it_learnt_in_eval():
    torch.manual_seed(0)
    module = catalog.build_network("mobilenetv2", 10)
    x = torch.randn(4, 3, 32, 32)
    norm = module.features[0][1]
    module.train()
    module(x)
    batch = module.features[0][0](x)
    expected = 0.9 * 0 + 0.1 * batch.mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-6)
    module.eval()
    before = norm.running_mean.clone()
    torch.testing.assert_close(module(x)[:1], module(x[:1]), rtol=1e-4, atol=1e-5)
    assert torch.equal(before, norm.running_mean)


def test_stochastic_depth_leaves_blocks_out_in_training_only():
    torch.manual_seed(0)
    module, x = catalog.build_network("resnet20_cifar", 10, drop=1.0), torch.randn(2, 3, 32, 32)
    assert [round(block.drop.probability * 9) for block in (*module.layer1, *module.layer2, *module.layer3)] == [
        *range(1, 10)
    ]
    last, inside = module.layer3[2], torch.randn(2, 64, 8, 8)
    assert torch.equal(last.train()(inside), torch.relu(inside))
    assert not torch.equal(last.eval()(inside), torch.relu(inside))
    plain = catalog.build_network("resnet20_cifar", 10)
    plain.load_state_dict(module.state_dict())
    assert torch.equal(plain.eval()(x), module.eval()(x))
