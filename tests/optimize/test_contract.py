"""What every pass promises: its four headings, a place in a recipe, its line in the documentation."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgesmith.optimize import passes
from edgesmith.optimize.base import Pass
from edgesmith.optimize.passes import __main__ as documentation
from edgesmith.optimize.recipes import RECIPES, recipe
from edgesmith.optimize.runner import find, optimize
from edgesmith.runtime.plugins import names
from support.graphs import batchnorm, model

NAMES = names(passes)
EVERYWHERE = """(float[N,4,8,8] x, bool p) => (float[N,4,6,6] y, float[N,4,6,6] z) {
  c = Conv(x, w) d = BatchNormalization(c, g, b, m, v) e = Relu(d) y = Clip(e, , h)
  z = If(p)<then_branch = t () => (float[N,4,6,6] o) { o = Identity(d) },
            else_branch = f () => (float[N,4,6,6] q) { q = Neg(e) }> }"""


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_says_what_it_does(name):
    text = __import__(f"{passes.__name__}.{name}", fromlist=["PASS"]).__doc__
    places = [text.index(heading) for heading in ("Before:", "After:", "When:", "Why:")]
    assert places == sorted(places)
    assert isinstance(find(name), Pass)
    assert any(name in found for found in RECIPES.values()), "no recipe runs it"


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_alone_keeps_the_interface_and_comes_to_rest(name, tmp_path):
    source, result = tmp_path / "source.onnx", tmp_path / "result.onnx"
    made = model(EVERYWHERE, batchnorm(4) | {"w": (4, 4, 3, 3), "h": np.float32(0.5)})
    onnx.save(made, source)
    report = optimize(source, result, passes=(name,))
    assert report.check.verdict == "equal"
    after = onnx.load(result)
    assert (list(after.graph.input), list(after.graph.output)) == (list(made.graph.input), list(made.graph.output))
    assert optimize(result, source, passes=(name,)).rewrites == 0


@pytest.mark.parametrize("target", RECIPES)
def test_recipes_name_passes(target):
    assert set(recipe(target)) <= set(NAMES)


def test_the_page_lists_the_passes():
    page = (Path(__file__).resolve().parents[2] / "docs" / "passes.md").read_text()
    assert documentation.table() in page, "run `python -m edgesmith.optimize.passes` and paste its table"
