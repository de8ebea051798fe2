"""A model with its preprocessing inside computes from pixels what it computed from what the runtime makes of them."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from edgesmith.cli import main
from edgesmith.optimize.embed_preprocessing import embed, raw_spec
from edgesmith.runtime.errors import ModelError, UsageError
from edgesmith.runtime.images import preprocess
from edgesmith.runtime.spec import SPEC_KEY, ModelSpec, Preprocess
from support.graphs import model, ops

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CASES = {
    "unpadded": ("y = Conv<strides=[2,2]>(x, w, k)", Preprocess((16, 16), 16), ["Conv"]),
    "padded": ("y = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)", Preprocess((16, 16), 16), ["Conv", "Sub"]),
    "padded, mean 0": (
        "y = Conv<pads=[1,1,1,1]>(x, w)", Preprocess((16, 16), 16, mean=(0.0,) * 3, std=STD), ["Conv"]
    ),
    "BGR": ("y = Conv(x, w)", Preprocess((16, 16), 16, channels="BGR"), ["Conv"]),
    "BGR, padded": ("y = Conv<pads=[1,1,1,1]>(x, w)", Preprocess((16, 16), 16, channels="BGR"), ["Conv", "Sub"]),
    "BGR without a Conv": (
        "y = AveragePool<kernel_shape=[3,3]>(x)", Preprocess((16, 16), 16, channels="BGR"),
        ["AveragePool", "BatchNormalization", "Gather"],
    ),
    "two readers": (
        "c = Conv(x, w) d = Conv<strides=[1,1]>(x, v) y = Mul(c, d)", Preprocess((16, 16), 16),
        ["BatchNormalization", "Conv", "Conv", "Mul"],
    ),
    "grey": ("y = Conv(x, u)", Preprocess((16, 16), 16, mean=(0.5,), std=(0.25,), channels="GRAY"), ["Conv"]),
}  # fmt: skip


def made(name, folder, batch="N", kind="float"):
    text, settings, expected = CASES[name]
    channels = len(settings.mean)
    weights = {"w": (4, 3, 3, 3), "v": (4, 3, 3, 3), "u": (4, 1, 3, 3), "k": (4,)}
    weights = {key: shape for key, shape in weights.items() if f" {key}" in text}
    proto = model(f"({kind}[{batch},{channels},16,16] x) => ({kind}[] y) {{ {text} }}", weights)
    spec = ModelSpec("net", (channels, 16, 16), preprocess=settings, input_name="x", output_names=("y",))
    proto.metadata_props.add(key=SPEC_KEY, value=spec.to_json())
    onnx.save(proto, folder / "net.onnx")
    return folder / "net.onnx", spec, expected


def run(path, array):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": array})[0]


def frames(count, channels):
    shape = (count, 16, 16) if channels == 1 else (count, 16, 16, channels)
    return np.random.default_rng(5).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("name", CASES)
def test_pixels_in_the_same_out(name, tmp_path):
    source, spec, left = made(name, tmp_path)
    images = frames(2, spec.input_shape[0])
    expected = run(source, preprocess.apply(list(images), spec))
    report = embed(source, tmp_path / "raw.onnx", input="float-nchw")
    assert report.check.verdict == "equal"
    assert ops(tmp_path / "raw.onnx") == left
    nhwc = images.reshape(2, 16, 16, -1)
    error = np.abs(run(tmp_path / "raw.onnx", nhwc.transpose(0, 3, 1, 2).astype(np.float32)) - expected).max()
    assert error <= 1e-5 * np.abs(expected).max()
    embed(source, tmp_path / "frame.onnx")
    assert ops(tmp_path / "frame.onnx") == sorted([*left, "Cast", "Transpose"])
    assert np.abs(run(tmp_path / "frame.onnx", nhwc) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_runtime_prepares_the_float_form_by_its_spec(tmp_path):
    source, spec, _ = made("padded", tmp_path)
    embed(source, tmp_path / "raw.onnx", input="float-nchw")
    raw = raw_spec(spec, "float-nchw")
    images = list(frames(2, 3))
    got = run(tmp_path / "raw.onnx", preprocess.apply(images, raw))
    expected = run(source, preprocess.apply(images, spec))
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_the_file_says_of_itself(tmp_path):
    source, spec, _ = made("unpadded", tmp_path)
    embed(source, tmp_path / "frame.onnx")
    after = onnx.load(tmp_path / "frame.onnx")
    value = after.graph.input[0].type.tensor_type
    assert (value.elem_type, value.shape.dim[0].dim_param) == (onnx.TensorProto.UINT8, "N")
    assert [dim.dim_value for dim in value.shape.dim[1:]] == [16, 16, 3]
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(after), full_check=True)
    held = ModelSpec.from_json(after.metadata_props[0].value)
    assert held == raw_spec(spec, "uint8-nhwc")
    assert (held.layout, held.dtype, held.input_shape) == ("NHWC", "uint8", (16, 16, 3))
    assert (
        dataclasses.replace(held, layout="NCHW", dtype="float32", input_shape=(3, 16, 16), preprocess=spec.preprocess)
        == spec
    )


@pytest.mark.parametrize(("batch", "kind"), [("2", "float"), ("N", "float16")])
def test_a_fixed_batch_and_half_precision(batch, kind, tmp_path):
    source, *_ = made("padded", tmp_path, batch, kind) if kind == "float" else _half(tmp_path)
    assert embed(source, tmp_path / "frame.onnx").check.verdict == "equal"


def _half(folder):
    source, spec, left = made("padded", folder, kind="float16")
    proto = onnx.load(source)
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, source)
    return source, spec, left


def test_what_cannot_be_embedded(tmp_path):
    source, spec, _ = made("unpadded", tmp_path)
    with pytest.raises(UsageError, match="did you mean 'uint8-nhwc'"):
        embed(source, tmp_path / "out.onnx", input="uint8-nchw")
    with pytest.raises(ModelError, match="cannot be changed to pixels"):
        embed(source, tmp_path / "out.onnx", dataclasses.replace(spec, input_name="image"))
    with pytest.raises(ModelError, match="cannot be changed to pixels"):
        embed(source, tmp_path / "out.onnx", dataclasses.replace(spec, preprocess=Preprocess(mean=(0.5,), std=(0.5,))))
    embed(source, tmp_path / "frame.onnx")
    with pytest.raises(ModelError, match="cannot be changed to pixels"):
        embed(tmp_path / "frame.onnx", tmp_path / "out.onnx")
    bare = onnx.load(source)
    del bare.metadata_props[:]
    onnx.save(bare, source)
    with pytest.raises(ModelError, match="does not define its preprocessing"):
        embed(source, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_the_model_itself_is_not_written_over(tmp_path):
    """It is what the result is compared with."""
    path = tmp_path / "m.onnx"
    onnx.save(model("(float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Relu(x) }"), path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="cannot write over .*; do: name another file"):
        embed(path, tmp_path / "." / "m.onnx", ModelSpec("m", input_shape=(3, 8, 8), input_name="x"))
    assert path.read_bytes() == before


def test_the_command(tmp_path):
    source, *_ = made("padded", tmp_path)
    done = CliRunner().invoke(
        main, ["optimize", str(source), "-o", str(tmp_path / "out.onnx"), "--preprocess", "uint8-nhwc"]
    )
    assert done.exit_code == 0, done.output
    assert ops(tmp_path / "out.onnx") == ["Cast", "Conv", "Sub", "Transpose"]
