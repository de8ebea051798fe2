"""The torch backend against ONNX Runtime with its optimisations off, operator by operator and network by network."""

# ruff: noqa: E501 - one case, one line
import numpy as np
import onnx
import onnx.parser
import pytest

from edgesmith.export import to_onnx
from edgesmith.models import catalog, weights
from edgesmith.optimize import quantize, runner
from edgesmith.runtime import load
from edgesmith.runtime.backends import ort, torch
from edgesmith.runtime.errors import ModelError, RunError, UsageError
from support import quant_graphs
from support.bundles import colour_bundle, golden_inputs

X = "float[1,4,7,9] x"
# name: (inputs, constants, nodes), with one output y
OPERATORS = {
    "conv, padded on one side": (X, "float[6,2,3,3] w, float[6] b", "y = Conv<group=2, pads=[0,1,2,0], strides=[2,1]>(x, w, b)"),
    "conv, SAME_UPPER": (X, "float[6,4,3,2] w", 'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)'),
    "conv, SAME_LOWER": (X, "float[6,4,4,2] w", 'y = Conv<auto_pad="SAME_LOWER", strides=[2,1]>(x, w)'),
    "conv, dilated": (X, "float[6,4,3,2] w", "y = Conv<dilations=[2,1], pads=[2,0,2,1]>(x, w)"),
    "conv, 1-D": ("float[2,3,9] x", "float[4,3,3] w", "y = Conv<pads=[1,1]>(x, w)"),
    "conv, 3-D": ("float[1,2,4,5,6] x", "float[3,2,2,2,2] w", "y = Conv(x, w)"),
    "transposed conv": (X, "float[4,3,3,3] w", "y = ConvTranspose<strides=[2,2], pads=[1,0,1,2], output_padding=[1,1], group=2>(x, w)"),
    "max pool, ceiled": (X, "", "y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)"),
    "max pool, ceiled and padded": (X, "", "y = MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,0,0], ceil_mode=1>(x)"),
    "average pool, without its padding": (X, "", "y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)"),
    "average pool, with its padding, ceiled": (X, "", "y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1, count_include_pad=1>(x)"),
    "gemm": ("float[3,4] x", "float[5,4] w, float[5] b", "y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)"),
    "batch norm": (X, "float[4] s, float[4] b, float[4] m, float[4] v", "y = BatchNormalization<epsilon=0.01>(x, s, b, m, v)"),
    "layer norm": ("float[2,3,8] x", "float[8] s, float[8] b", "y = LayerNormalization<axis=-1>(x, s, b)"),
    "local response norm": (X, "", "y = LRN<size=3, alpha=0.1, beta=0.5, bias=2.0>(x)"),
    "softmax": ("float[2,3,8] x", "", "y = Softmax<axis=1>(x)"),
    "hard sigmoid": (X, "", "y = HardSigmoid<alpha=0.3, beta=0.4>(x)"),
    "leaky ReLU": (X, "", "y = LeakyRelu<alpha=0.3>(x)"),
    "PReLU": (X, "float[4,1,1] s", "y = PRelu(x, s)"),
    "gelu": (X, "", 'y = Gelu<approximate="tanh">(x)'),
    "mean over two axes": (X, "", "a = Constant<value_ints=[2,3]>() y = ReduceMean<keepdims=0>(x, a)"),
    "slice, backwards": (X, "", "s = Constant<value_ints=[6]>() e = Constant<value_ints=[-100]>() a = Constant<value_ints=[3]>() t = Constant<value_ints=[-2]>() y = Slice(x, s, e, a, t)"),
    "gather, a negative index": (X, "", "i = Constant<value_ints=[-1,0,2]>() y = Gather<axis=1>(x, i)"),
    "split and concat": (X, "", "p = Constant<value_ints=[1,3]>() a, b = Split<axis=1>(x, p) y = Concat<axis=1>(b, a)"),
    "a shuffle of channels": (X, "", "s = Constant<value_ints=[0,2,2,7,9]>() r = Reshape(x, s) t = Transpose<perm=[0,2,1,3,4]>(r) e = Constant<value_ints=[0,-1,7,9]>() y = Reshape(t, e)"),
    "pad by edges": (X, "", 'p = Constant<value_ints=[0,0,1,2,0,0,0,1]>() y = Pad<mode="edge">(x, p)'),
    "pad by a value": (X, "", "p = Constant<value_ints=[0,0,1,2,0,0,0,-1]>() v = Constant<value_float=3.5>() y = Pad(x, p, v)"),
    "depth to space": (X, "", 'y = DepthToSpace<blocksize=2, mode="CRD">(x)'),
    "depth to space, by columns": (X, "", "y = DepthToSpace<blocksize=2>(x)"),
    "resize, nearest": (X, "", 's = Constant<value_floats=[1.0,1.0,2.0,2.0]>() y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , s)'),
    "resize, linear": (X, "", 's = Constant<value_floats=[1.0,1.0,2.0,3.0]>() y = Resize<mode="linear">(x, , s)'),
    "squeeze and unsqueeze": ("float[1,4,1,9] x", "", "a = Constant<value_ints=[0,2]>() s = Squeeze(x, a) u = Constant<value_ints=[1,-1]>() y = Unsqueeze(s, u)"),
    "clip above only": (X, "", "h = Constant<value_float=0.5>() y = Clip(x, , h)"),
}  # fmt: skip


def network(case):
    inputs, constants, nodes = OPERATORS[case]
    text = f'<ir_version: 9, opset_import: ["" : 20]> net ({", ".join(filter(None, (inputs, constants)))}) => (float y) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for value in [*model.graph.input][1:]:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = rng.random(shape, np.float32) + 0.1
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        model.graph.input.remove(value)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return model.SerializeToString(), {"x": rng.standard_normal(shape, np.float32)}


def both(content, feeds):
    with ort.open("net.onnx", threads=1, optimise=False, content=content) as session:
        expected = next(iter(session.run(feeds).values()))
    with torch.open("net.onnx", content=content) as session:
        return next(iter(session.run(feeds).values())), expected


@pytest.mark.parametrize("case", OPERATORS)
def test_an_operator_computes_what_onnx_runtime_computes(case):
    got, expected = both(*network(case))
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenetv3_small", "shufflenetv2_x0_5", "googlenet"])
def test_a_network_computes_what_onnx_runtime_computes(name, tmp_path):
    spec = catalog.spec(name, "digits")
    module = catalog.build(name, spec.num_classes)
    spec = weights.load_into(module, spec, "random")
    weights.settle(module, spec.input_shape)
    to_onnx.export(module, spec, tmp_path / "raw.onnx")
    path = tmp_path / "net.onnx"
    runner.optimize(tmp_path / "raw.onnx", path, verify=False)
    x = np.random.default_rng(0).standard_normal((1, *spec.input_shape), np.float32)
    got, expected = both(path.read_bytes(), {spec.input_name: x})
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(got[:, ::-1] - expected).max() > 1e-2 * np.abs(expected).max()


def test_quantised_networks_run_as_they_are_written(tmp_path):
    onnx.save(quant_graphs.small_cnn(), tmp_path / "fp32.onnx")
    quantize.quantize(
        tmp_path / "fp32.onnx", tmp_path / "int8.onnx", quant_graphs.batches(), target="trt", allow_random=True
    )
    x = quant_graphs.images(4, seed=1)
    got, expected = both((tmp_path / "int8.onnx").read_bytes(), {"input": x})
    step = np.abs(expected).max() / 127
    assert np.abs(got - expected).max() <= 2 * step  # a value halfway between two steps may go either way
    assert np.median(np.abs(got - expected)) < step / 100


def test_a_bundle_runs_on_it_when_it_is_named_and_only_then(tmp_path):
    made = colour_bundle(tmp_path / "colours")
    with load(made, device="torch") as model, load(made, device="cpu") as usual:
        assert (model.chosen.backend, usual.chosen.backend) == ("torch", "ort")
        batch = golden_inputs(3)["input"]
        for name, value in usual.run(batch).items():
            np.testing.assert_allclose(model.run(batch)[name], value, rtol=1e-5, atol=1e-6)


def test_what_it_cannot_do_is_said(tmp_path):
    loop = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]> net (float[2] x) => (float[2] y) { y = Det(x) }'
    )
    with pytest.raises(ModelError, match="no Det"):
        torch.open("net.onnx", content=loop.SerializeToString())
    with pytest.raises(ModelError, match="no ONNX file"):
        torch.open("net.onnx", content=b"nonsense")
    with pytest.raises(UsageError, match="unknown provider"):
        torch.open("net.onnx", content=network("gemm")[0], provider="tpu")
    content, _ = network("split and concat")
    with torch.open("net.onnx", content=content) as session:
        session._steps[2] = (lambda *inputs: 1 / 0, *session._steps[2][1:])
        with pytest.raises(RunError, match="PyTorch failed"):
            session.run({"x": np.zeros((1, 4, 7, 9), np.float32)})
