"""The sizes an engine is built for, from the command or the file's ModelSpec, and what they let the preflight take."""

import json

import onnx
import pytest
from click.testing import CliRunner

from edgesmith.cli import build, main
from edgesmith.optimize.graph import complexity, spec_metadata
from edgesmith.optimize.trt import preflight
from edgesmith.optimize.trt.profile import settle_profile
from edgesmith.runtime.common.sizes import settle_shape
from edgesmith.runtime.errors import UsageError
from edgesmith.runtime.spec import InputSpec, ModelSpec
from support.engine_graphs import saved, small_net, text_model

SPEC = ModelSpec("net", (3, 32, 48), task="features", input_name="x", other_inputs=(InputSpec("s", (2,)),))
TWO = "m = ReduceMean<axes=[1,2,3],keepdims=0>(x) t = ReduceSum<keepdims=0>(s, one) y = Add(m, t)"


def two_inputs(path, spec=SPEC, first="N,3,H,W", second="N,2"):
    """Write a network of an image and a scale factor, with its spec inside."""
    model = text_model(TWO, inputs=f"float[{first}] x, float[{second}] s", outputs="float[M] y",
                       weights="int64[1] one = {1}")  # fmt: skip
    if spec is not None:
        spec_metadata.write(model, spec)
    return saved(model, path)


def same(sizes):
    return (sizes,) * 3


# spec, --batch, --shape -> the profile
GOOD = {
    "from the spec, batch 1": (SPEC, None, {}, {"x": same((1, 3, 32, 48)), "s": same((1, 2))}),
    "from the spec, a range": (SPEC, (1, 2, 4), {}, {
        "x": ((1, 3, 32, 48), (2, 3, 32, 48), (4, 3, 32, 48)), "s": ((1, 2), (2, 2), (4, 2))}),
    "the command first": (SPEC, None, {"x": same((5, 3, 8, 8))}, {"x": same((5, 3, 8, 8)), "s": same((5, 2))}),
    "no spec": (None, None, {"x": ((1, 3, 8, 8), (1, 3, 16, 16), (2, 3, 32, 32))}, {
        "x": ((1, 3, 8, 8), (1, 3, 16, 16), (2, 3, 32, 32)), "s": ((1, 2), (1, 2), (2, 2))}),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_every_free_size_gets_its_three(case, tmp_path):
    spec, batch, shapes, expected = GOOD[case]
    assert settle_profile(two_inputs(tmp_path / "n.onnx", spec), batch, shapes) == expected


BAD = {
    "nothing says it": ({}, None, r"'x' has no fixed size; .* give --shape x=1x3xSIZExSIZE"),
    "an input that is not there": ({"z": same((1, 3, 8, 8))}, SPEC, "there is no input 'z'; expected x, s"),
    "which of two": ({"": same((1, 3, 8, 8))}, SPEC, "there is no input ''"),
    "another rank": ({"x": same((1, 3, 8))}, SPEC, "does not match the input 'x'"),
    "another channel": ({"x": same((1, 4, 8, 8))}, SPEC, "does not match the input 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_sizes_that_nobody_says_are_asked_for(case, tmp_path):
    shapes, spec, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        settle_profile(two_inputs(tmp_path / "n.onnx", spec), None, shapes)


def test_a_file_without_free_sizes_has_no_profile(tmp_path):
    assert settle_profile(two_inputs(tmp_path / "n.onnx", None, "1,3,8,8", "1,2")) == {}


def test_all_inputs_of_the_spec_have_sizes_and_one_batch():
    shapes = {"x": (None, 3, None, None), "s": (None, 2)}
    assert settle_shape(shapes, "", SPEC, 4) == {"x": (4, 3, 32, 48), "s": (4, 2)}
    assert settle_shape(shapes, "x=3x3x8x8", SPEC) == {"x": (3, 3, 8, 8), "s": (3, 2)}
    assert settle_shape({"s": (None, None)}, "", SPEC) == {"s": (1, 2)}


def test_describe_reads_the_sizes_of_two_inputs(tmp_path):
    report = complexity.describe(two_inputs(tmp_path / "n.onnx"))
    assert report.layers


# the Reshape's constant, batches of the profile -> whether TensorRT can use it (each was built with TensorRT-RTX 1.7)
RESHAPES = {
    "to 1 x 4, batch 1": ("1, 4", (1, 1, 1), True), "to 1 x 4, batches": ("1, 4", (1, 2, 4), False),
    "to 2 x 4, batch 2": ("2, 4", (2, 2, 2), True), "to 2 x 4, batch 1": ("2, 4", (1, 1, 1), False),
    "folded, batch 1": ("2, 2", (1, 1, 1), True), "the rest behind": ("4, -1", (1, 2, 4), True),
    "the batch copied": ("0, 4", (1, 2, 4), True), "the batch as the rest": ("-1, 4", (1, 2, 4), True),
    "a rest that does not go up": ("3, -1", (1, 2, 4), False),
}  # fmt: skip


@pytest.mark.parametrize("case", RESHAPES)
def test_a_reshape_is_judged_at_the_batches_of_the_profile(case, tmp_path):
    sizes, batch, fits = RESHAPES[case]
    path = saved(text_model("y = Reshape(x, r)", inputs="float[N,4] x", outputs="float[A,B] y",
                            weights=f"int64[2] r = {{{sizes}}}"), tmp_path / "n.onnx")  # fmt: skip
    errors = preflight.check(path, "fp32", ["8.6"], settle_profile(path, batch))
    assert [item.code for item in errors] == ([] if fits else ["fixed-batch"])
    if case == "to 1 x 4, batches":
        assert errors[0].do.startswith("build with --batch 1, or export")


def test_a_reshape_of_what_is_not_the_batch_is_left_to_tensorrt(tmp_path):
    path = saved(text_model("w = NonZero(x) f = Transpose(w) y = Reshape(f, r)", inputs="float[N,4] x",
                            outputs="int64[1,A] y", weights="int64[2] r = {1, 7}"), tmp_path / "n.onnx")  # fmt: skip
    assert "fixed-batch" not in [item.code for item in preflight.check(path)]


REDUCE = {"axes in attributes": ("ReduceMean<axes=[-1,-2],keepdims=1>(x)", 13, ""),
          "axes as input": ("ReduceMax<keepdims=1>(x, a)", 18, "int64[2] a = {-1, -2}"),
          "sum": ("ReduceSum<keepdims=1>(x, a)", 13, "int64[2] a = {-1, -2}")}  # fmt: skip


@pytest.mark.parametrize("case", REDUCE)
def test_reductions_over_negative_axes_pass(case, tmp_path):
    body, opset, weights = REDUCE[case]
    model = text_model(f"y = {body}", outputs="float[1,4,1,1] y", opset=opset, weights=weights)
    assert preflight.check(saved(model, tmp_path / "n.onnx"), "fp32", ["8.6"]) == []


def test_box_suppression_is_refused_for_tensorrt_rtx_only(tmp_path):
    path = saved(text_model("y = NonMaxSuppression(x, s, k)", inputs="float[1,4,4] x, float[1,1,4] s",
                            outputs="int64[M,3] y", weights="int64[1] k = {3}"), tmp_path / "n.onnx")  # fmt: skip
    (item,) = preflight.check(path, "fp32", ["8.6"])
    assert (item.code, "TensorRT-RTX has no NonMaxSuppression" in item.what) == ("unsupported-op", True)
    assert preflight.check(path, "fp32", ["8.6"], flavour="standard") == []


def test_a_file_in_fp16_names_the_flag(tmp_path):
    path = saved(small_net("fp16"), tmp_path / "n.onnx")
    (item,) = preflight.check(path, "fp32", ["8.6"])
    assert (item.code, item.do) == ("half-file", "build with --fp16")
    assert preflight.check(path, "fp16", ["8.6"]) == []
    assert "half-file" not in [item.code for item in preflight.check(saved(small_net(), tmp_path / "n.onnx"), "fp32")]


# -- the command: everything but the build itself ----------------------------------------------------------------------


@pytest.fixture
def built(monkeypatch):
    """Collect the settings of the builds that the command would start."""
    calls = []

    def play(onnx, target, sm, settings):
        calls.append(settings)
        raise UsageError("played")

    monkeypatch.setattr(build, "_build", play)
    monkeypatch.setattr(build, "choose_flavour", lambda flavour, sm: ("rtx", ""))
    return calls


COMMANDS = {
    "the spec alone": ([], same((1, 3, 32, 48)), "built for x 1x3x32x48, s 1x2; --batch or --shape gives other sizes"),
    "a batch": (["--batch", "2"], same((2, 3, 32, 48)), ""),
    "one shape": (["--shape", "x=1x3x8x8"], same((1, 3, 8, 8)), ""),
    "a range": (["--shape", "x=1x3x8x8:1x3x16x16:2x3x32x32"], ((1, 3, 8, 8), (1, 3, 16, 16), (2, 3, 32, 32)), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS)
def test_build_takes_sizes_from_the_spec(case, built, tmp_path):
    words, expected, said = COMMANDS[case]
    path = two_inputs(tmp_path / "n.onnx")
    done = CliRunner().invoke(main, ["build", str(path), "-o", str(tmp_path / "n.engine"), *words])
    assert done.exit_code == 2, done.output
    assert built[0]["shapes"]["x"] == expected, done.output
    assert ("built for" in done.stderr) is bool(said)
    assert said in done.stderr


REFUSED = {
    "no size": ([], "give --shape x=1x3xSIZExSIZE"),
    "two shapes": (["--shape", "x=1x3x8x8:1x3x9x9"], "is not a profile"),
    "no numbers": (["--shape", "x=1x3xHxW"], "is not a list of whole numbers"),
    "an order": (["--batch", "4,2,1"], "the batch profile is not valid"),
    "an input": (["--shape", "z=1x3x8x8"], "there is no input 'z'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_build_refuses_sizes_in_one_line(case, built, tmp_path):
    words, message = REFUSED[case]
    path = two_inputs(tmp_path / "n.onnx", None)
    done = CliRunner().invoke(main, ["build", str(path), "-o", str(tmp_path / "n.engine"), *words])
    assert (done.exit_code, message in done.stderr, built) == (2, True, []), done.output
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_check_alone_needs_no_size(tmp_path):
    path = two_inputs(tmp_path / "n.onnx", None)
    done = CliRunner().invoke(main, ["build", str(path), "--check-only", "--json"])
    assert (done.exit_code, json.loads(done.stdout)) == (0, [])
    onnx.load(path)
