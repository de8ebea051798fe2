"""What a module returns, in any holder and any order, is exported and compared under the name of its key."""

import dataclasses
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgesmith.export import outputs, parity, to_onnx
from edgesmith.optimize.graph import spec_metadata
from edgesmith.runtime import bundle, load
from edgesmith.runtime.answer import Answer
from edgesmith.runtime.errors import CheckFailed, ModelError
from edgesmith.runtime.images.postprocess import softmax
from edgesmith.runtime.spec import ModelSpec
from edgesmith.runtime.tasks import DecodeContext


@dataclasses.dataclass
class Output:
    """As transformers' ModelOutput: fields, some of them None."""

    small: Any = None
    hidden: Any = None
    big: Any = None


Pair = namedtuple("Pair", "big small")
# What holds the outputs, made from (big, small) -> the names in the spec
HOLDERS = {
    "a tuple": (lambda big, small: (big, small), ("big", "small")),
    "a list": (lambda big, small: [big, small], ("big", "small")),
    "a dict": (lambda big, small: {"big": big, "small": small}, ("big", "small")),
    "a dict in another order": (lambda big, small: {"small": small, "big": big}, ("big", "small")),
    "names in another order": (lambda big, small: {"big": big, "small": small}, ("small", "big")),
    "an ordered dict": (lambda big, small: OrderedDict(small=small, big=big), ("big", "small")),
    "a dataclass": (lambda big, small: Output(big=big, small=small), ("big", "small")),
    "a named tuple by its keys": (lambda big, small: Pair(big, small), ("small", "big")),
    "a named tuple by its order": (lambda big, small: Pair(big, small), ("first", "second")),
    "nested": (lambda big, small: {"rest": [small], "main": {"big": big}}, ("big", "rest.0")),
    "nested, joined otherwise": (lambda big, small: {"rest": [small], "main": (big,)}, ("main_0", "rest_0")),
    "nested tuples": (lambda big, small: ((big,), [small]), ("a", "b")),
    "a tuple of dicts": (lambda big, small: ({"small": small}, {"big": big}), ("big", "small")),
}


class Net(nn.Module):
    def __init__(self, hold, end=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.hold, self.end = nn.Conv2d(2, 3, 3), hold, end or nn.Identity()

    def forward(self, x):
        big = self.conv(x)
        return self.hold(big, self.end(big.mean((2, 3))))


def spec(names, **others):
    return ModelSpec("net", (2, 6, 5), 3, output_names=names, **{"task": "features", **others})


def answers(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, {"input": images}), strict=True))


@pytest.mark.parametrize("case", HOLDERS)
def test_each_tensor_is_found_by_its_key(case):
    hold, names = HOLDERS[case]
    big, small = torch.zeros(2), torch.ones(1)
    expected = [big if name in ("big", "main_0", "first", "a") else small for name in names]
    assert all(a is b for a, b in zip(outputs.arranged(hold(big, small), names), expected, strict=True))


@pytest.mark.parametrize("case", ["a tuple", "a dict in another order", "a dataclass", "nested"])
def test_each_output_has_the_name_of_its_key(case, tmp_path):
    hold, names = HOLDERS[case]
    net = Net(hold).eval()
    path = to_onnx.export(net, spec(names), tmp_path / "net.onnx")
    images = np.random.default_rng(0).standard_normal((1, 2, 6, 5)).astype("f4")
    big = net.conv(torch.from_numpy(images)).detach().numpy()
    got = answers(path, images)
    assert tuple(got) == names
    for name, value in got.items():
        expected = big if name in ("big", "main_0", "first", "a") else big.mean((2, 3))
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    assert parity.check(net, path, spec(names)).worst.output in names
    assert "forward" not in vars(net)
    initialisers = {tensor.name for tensor in onnx.load(path).graph.initializer}
    assert {"conv.weight", "conv.bias"} <= initialisers


def test_parity_finds_swapped_names(tmp_path):
    """Two outputs of one shape, exported by an order that is not that of the keys."""
    held = Net(lambda big, small: {"b": big * 2, "a": big})
    path = to_onnx.export(held, spec(("a", "b")), tmp_path / "net.onnx")
    assert parity.check(held, path, spec(("a", "b"))).passed
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = [{"a": "b", "b": "a"}.get(name, name) for name in node.output]
        node.input[:] = [{"a": "b", "b": "a"}.get(name, name) for name in node.input]
    onnx.save(model, path)
    with pytest.raises(CheckFailed, match="output '[ab]' is worst"):
        parity.check(held, path, spec(("a", "b")))


def test_parity_of_outputs_whose_first_axis_is_not_the_batch(tmp_path):
    net = Net(lambda big, small: big.mean(2).permute(2, 0, 1))
    path = to_onnx.export(net, spec(("output",)), tmp_path / "net.onnx")
    assert parity.check(net, path, spec(("output",))).worst.error < 1e-5
    with pytest.raises(CheckFailed):
        parity.check(Net(lambda big, small: -big.mean(2).permute(2, 0, 1)), path, spec(("output",)))


WRONG = {
    "another key": (lambda big, small: {"big": big, "little": small}, ("big", "small"), "keys .*; got big, little"),
    "too few": (lambda big, small: (big,), ("big", "small"), "returns 1 tensors, and 2 outputs are named"),
    "too many": (lambda big, small: {"a": big, "b": small}, ("a",), "returns 2 tensors, and 1 outputs are named"),
    "a number": (lambda big, small: {"big": big, "small": 3}, ("big", "small"), "returns a int; got small"),
    "nothing": (lambda big, small: None, ("output",), "returns 0 tensors"),
    "one key that is said twice": (
        lambda big, small: ({"x": big}, {"x": small}), ("x", "y"), "keys .* differ .*got 0.x, 1.x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_outputs_that_fit_no_name_are_refused(case, tmp_path):
    hold, names, message = WRONG[case]
    with pytest.raises(ModelError, match=message):
        to_onnx.export(Net(hold), spec(names), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_single_tensor_needs_no_key():
    tensor = torch.zeros(1)
    for held in (tensor, (tensor,), [tensor], {"out": tensor}, Output(hidden=tensor), {"a": [{"b": tensor}]}):
        assert outputs.arranged(held, ["output"])[0] is tensor
    assert [outputs.is_plain(held) for held in (tensor, (tensor,), [tensor], Pair(tensor, tensor), {"a": tensor})] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(30))
def test_random_holders(seed):
    """Keys drawn at random, in random dicts within dicts: each name gives its own tensor."""
    rng = np.random.default_rng(seed)
    tensors = {f"t{n}": torch.full((1,), float(n)) for n in range(int(rng.integers(2, 7)))}
    names = list(rng.permutation(list(tensors)))
    held: dict = {}
    for name in rng.permutation(list(tensors)):
        place = held
        for step in range(rng.integers(3)):
            place = place.setdefault(f"in{step}", {})
        place[name] = tensors[name]
    assert [float(one) for one in outputs.arranged(held, names)] == [float(tensors[name]) for name in names]


# -- logits or probabilities -------------------------------------------------------------------------------------------

ENDS = {
    "logits": (None, "logits"),
    "softmax": (nn.Softmax(1), "probabilities"),
    "an unknown end": (nn.Tanh(), ""),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_spec_says_what_the_graph_ends_in(case, tmp_path):
    end, scores = ENDS[case]
    net = Net(lambda big, small: small, end).eval()
    path = to_onnx.export(net, spec(("output",), task="classify"), tmp_path / "net.onnx")
    told = spec_metadata.read(path)
    assert told.scores == scores
    assert scores in ("", spec_metadata.ending(path)["output"][0])
    image = np.random.default_rng(0).integers(0, 255, (6, 5, 2)).astype("f4").transpose(2, 0, 1)[None] / 50
    golden = answers(path, image)
    made = bundle.write(tmp_path / "b", told, [bundle.Item(path, golden=golden)], golden_inputs={"input": image})
    assert made.manifest.format == (3 if scores else 1)
    assert bundle.read(made.folder).spec == told
    with load(made, "ort") as model:
        (answer,) = model(image)
    expected = golden["output"][0] if scores == "probabilities" else softmax(golden["output"][0])
    np.testing.assert_allclose(answer.probabilities, expected, rtol=1e-5)
    assert answer.top(1)[0].probability == pytest.approx(float(expected.max()), rel=1e-5)


TEXTS = {
    "through a reshape": ("s = Softmax(x) y = Reshape(s, n)", ("probabilities", "Softmax")),
    "quantised": ("s = Softmax(x) q = QuantizeLinear(s, c) y = DequantizeLinear(q, c)", ("probabilities", "Softmax")),
    "pooled": ("s = Softmax(x) y = ReduceMean<keepdims=1>(s)", ("probabilities", "Softmax")),
    "sigmoid": ("y = Sigmoid(x)", ("probabilities", "Sigmoid")),
    "log-softmax": ("y = LogSoftmax(x)", ("logits", "LogSoftmax")),
    "by hand": ("e = Exp(x) t = ReduceSum(e) y = Div(e, t)", ("", "Div")),
    "softmax inside": ("s = Softmax(x) y = MatMul(s, w)", ("logits", "MatMul")),
    "nothing but the input": ("y = Identity(x)", ("", "")),
}


@pytest.mark.parametrize("case", TEXTS)
def test_the_end_is_read_off_a_file(case, tmp_path):
    text, expected = TEXTS[case]
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]> g (float[1,3] x) => (float[1,3] y)
        <int64[2] n = {{1, 3}}, float c = {{0.1}}, float[3,3] w = {{1,2,3,4,5,6,7,8,9}}> {{ {text} }}""")
    onnx.save(model, tmp_path / "net.onnx")
    assert spec_metadata.ending(tmp_path / "net.onnx") == {"y": expected}


SURE = np.array([0.99996, 0.00003, 0.00001], np.float32)
VALUES = {
    "probabilities, said": (SURE, "probabilities", SURE), "probabilities, not said": (SURE, "", SURE),
    "logits, said": (SURE, "logits", softmax(SURE)), "a negative one": (SURE - 0.1, "", softmax(SURE - 0.1)),
    "another sum": (SURE * 1.01, "", softmax(SURE * 1.01)),
    "several sigmoids": (SURE + 0.5, "probabilities", SURE + 0.5), "no classes": (SURE[:0], "probabilities", SURE[:0]),
}  # fmt: skip


@pytest.mark.parametrize("case", VALUES)
def test_a_softmax_is_taken_once(case):
    values, scores, expected = VALUES[case]
    answer = Answer({"output": values}, context=DecodeContext(scores=scores))
    np.testing.assert_array_equal(answer.probabilities, expected)
    assert [guess.probability for guess in answer.top(3)] == sorted(map(float, expected), reverse=True)


def test_old_specs_are_read_and_written_as_they_were():
    old = ModelSpec("old")
    assert "scores" not in old.to_dict()
    assert ModelSpec.from_json(old.to_json()) == old
    new = dataclasses.replace(old, scores="probabilities")
    assert ModelSpec.from_json(new.to_json()) == new
    with pytest.raises(ModelError, match="scores 'odds' is not one of"):
        ModelSpec.from_json(new.to_json().replace('"probabilities"', '"odds"'))
