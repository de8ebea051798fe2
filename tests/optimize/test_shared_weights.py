"""Weights that several layers share while what is folded into the layers differs: the copies are told, or not made."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgesmith.cli.optimize import optimize_command
from edgesmith.optimize.optimizer import optimize
from support.graphs import batchnorm, model, ops

HEADS = (
    "(float[1,8,6,6] x, float[1,8,3,3] z) => (float[1,8,6,6] y, float[1,8,3,3] u)"
    " { a = Conv(x, w) y = BatchNormalization(a, g, b, m, v) c = Conv(z, w) u = BatchNormalization(c, h, i, j, k) }"
)
BEFORE = (
    "(float[1,8,6,6] x, float[1,8,3,3] z) => (float[1,8,6,6] y, float[1,8,3,3] u)"
    " { a = Mul(x, s) y = Conv(a, w) u = Conv(z, w) }"
)
WEIGHTS = {"w": (8, 8, 1, 1)}
DIFFERENT = WEIGHTS | batchnorm(8) | batchnorm(8, "hijk", seed=2)
EQUAL = WEIGHTS | batchnorm(8) | batchnorm(8, "hijk")
COPIED = (
    "the weights 'w' of 2 layers were copied, because what is folded into these differs: 0.00 MB more; "
    "--keep-shared leaves them"
)


def run(text, weights, folder, **options):
    source, result = folder / "source.onnx", folder / "result.onnx"
    onnx.save(model(text, weights), source)
    report = optimize(source, result, **options)
    assert report.check.verdict == "equal"
    return report, ops(result), [tuple(tensor.dims) for tensor in onnx.load(result).graph.initializer]


@pytest.mark.parametrize(("text", "weights"), [(HEADS, DIFFERENT), (BEFORE, WEIGHTS | {"s": (1, 8, 1, 1)})])
def test_copies_are_told(text, weights, tmp_path):
    report, kinds, shapes = run(text, weights, tmp_path)
    assert (report.notes, kinds, shapes.count((8, 8, 1, 1))) == ((COPIED,), ["Conv", "Conv"], 2)


def test_equal_parameters_copy_nothing(tmp_path):
    report, kinds, shapes = run(HEADS, EQUAL, tmp_path)
    assert (report.notes, kinds, shapes.count((8, 8, 1, 1))) == ((), ["Conv", "Conv"], 1)


@pytest.mark.parametrize(
    ("text", "weights", "left"),
    [
        (HEADS, DIFFERENT, ["BatchNormalization", "BatchNormalization", "Conv", "Conv"]),
        (BEFORE, WEIGHTS | {"s": (1, 8, 1, 1)}, ["Conv", "Conv", "Mul"]),
    ],
)
def test_on_request_nothing_is_copied_and_the_reason_is_told(text, weights, left, tmp_path):
    report, kinds, shapes = run(text, weights, tmp_path, keep_shared=True)
    assert (report.notes, kinds, shapes.count((8, 8, 1, 1))) == ((), left, 1)
    whys = [why for entry in report.passes for _, why in entry.refusals]
    assert any("shared with another layer, and stay so on request" in why for why in whys)


def test_the_command_tells_it_and_takes_the_option(tmp_path):
    source = tmp_path / "source.onnx"
    onnx.save(model(HEADS, DIFFERENT), source)
    told = CliRunner().invoke(optimize_command, [str(source), "-o", str(tmp_path / "a.onnx")])
    assert "were copied" in told.output + told.stderr, told
    kept = CliRunner().invoke(optimize_command, [str(source), "-o", str(tmp_path / "b.onnx"), "--keep-shared"])
    assert "were copied" not in kept.output + kept.stderr
    assert np.isclose((tmp_path / "b.onnx").stat().st_size, source.stat().st_size, atol=400)
