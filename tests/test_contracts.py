"""Every plugin keeps its contract, and one that breaks it, planted as a file, is found."""

import numpy as np
import pytest

from edgesmith.bench import metrics, suite
from edgesmith.bench.measure.context import MetricContext
from edgesmith.bench.measure.interleave import SamplingPlan, collect_samples
from edgesmith.optimize import passes
from edgesmith.runtime import backends
from edgesmith.runtime.common.plugins import plugin_names
from edgesmith.runtime.selection.candidates import BACKENDS
from support.bundles import colour_bundle, colour_net, golden_inputs
from support.contracts import backend_problems, metric_problems, pass_problems, planted


def test_a_planted_plugin_is_the_only_one_and_goes_again(tmp_path):
    before = plugin_names(passes)
    with planted(passes, tmp_path / "p", "PASS = 1") as name:
        assert plugin_names(passes) == [name]
    assert plugin_names(passes) == before


@pytest.mark.parametrize("name", plugin_names(passes))
def test_every_pass_keeps_its_contract(name, tmp_path):
    assert pass_problems(name, tmp_path) == []


PASS = '''"""A pass.

Before: x
After:  y
When:   z
Why:    w
"""
from ._base import Pass, Refused, Rewritten

def rewrite(graph, node):
    {does}

PASS = Pass(rewrite, ("Relu",), "x becomes y")
'''
IDLE = PASS.format(does='return Refused(node.name, "never")')
BROKEN_PASSES = {
    "nothing but the recipe": (IDLE, "no recipe runs it"),
    "a heading is missing": (IDLE.replace("Why:", "Because:"), "its docstring lacks a heading"),
    "headings in another order": (IDLE.replace("When:", "Why:", 1), "its docstring lacks a heading"),
    "no docstring": (IDLE[IDLE.index("from") :], "its docstring lacks a heading"),
    "no Pass": (IDLE + "PASS = print\n", "PASS is not a Pass"),
    "it computes something else": (
        PASS.format(does='node.op = "Neg"; return Rewritten(node.name)'),
        "rolled back: output",
    ),
    "it loses a node": (PASS.format(does="graph.drop(node); return Rewritten(node.name)"), "broke the graph"),
    "it stumbles": (PASS.format(does="raise KeyError(node.name)"), "rolled back: KeyError"),
    "it never comes to rest": (PASS.format(does="return Rewritten(node.name)"), "it does not come to rest"),
    "it names the free dimension": (
        PASS.format(does='graph.skeleton.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "M"; return None'),
        "the interface changed",
    ),
}


@pytest.mark.parametrize("case", BROKEN_PASSES)
def test_a_broken_pass_is_found(case, tmp_path):
    text, problem = BROKEN_PASSES[case]
    with planted(passes, tmp_path / "p", text) as name:
        found = pass_problems(name, tmp_path)
    assert any(problem in one for one in found), found
    assert len(found) <= 3  # what is not broken is not named


@pytest.fixture
def net(tmp_path):
    return colour_net(tmp_path / "colours.onnx")


def answer():
    return 4.0 * golden_inputs()["input"].astype(np.float64).mean(axis=(2, 3))


@pytest.mark.parametrize("name", plugin_names(backends))
def test_every_backend_keeps_its_contract(name, net):
    assert backend_problems(name, net, answer(), computes=name in BACKENDS["onnx"]) == []


BACKEND = '''"""A backend: ONNX Runtime, changed."""
from . import ort
from .ort import *
from .ort import OrtSession, available, open as open_ort

class Other(OrtSession):
    {changed}

def open(path, **settings):
    made = open_ort(path, **settings)
    made.__class__ = Other
    return made
'''
SOUND = BACKEND.format(changed="pass")
BROKEN_BACKENDS = {
    "another answer": (
        BACKEND.format(changed="def _run(self, feeds): return {k: 2 * v for k, v in super()._run(feeds).items()}"),
        "its answer is wrong",
    ),
    "zeros": (
        BACKEND.format(changed="def _run(self, feeds): return {k: 0 * v for k, v in super()._run(feeds).items()}"),
        "its answer is wrong",
    ),
    "the batch's mean": (
        BACKEND.format(changed="def _run(self, feeds): return {k: v[:1] for k, v in super()._run(feeds).items()}"),
        "its answer is wrong",
    ),
    "nothing is checked": (
        BACKEND.format(changed="def run(self, feeds, finite=False): return self._run(feeds)"),
        "NaN is accepted",
    ),
    "no word on whether it is there": (SOUND + "def available(): return True\n", "available() says True"),
    "no reason": (SOUND + 'def available(): return (False, "")\n', "available() says (False, '')"),
    "an error that is not ours": (
        SOUND + "def open(path, **settings): return open_ort(str(__builtins__['open'](path)))\n",
        "a file that is not there is a FileNotFoundError",
    ),
}


def test_a_sound_planted_backend_has_no_problem(net, tmp_path):
    with planted(backends, tmp_path / "p", SOUND) as name:
        assert backend_problems(name, net, answer(), computes=True) == []


@pytest.mark.parametrize("case", BROKEN_BACKENDS)
def test_a_broken_backend_is_found(case, net, tmp_path):
    text, problem = BROKEN_BACKENDS[case]
    with planted(backends, tmp_path / "p", text) as name:
        assert problem in backend_problems(name, net, answer(), computes=case != "an error that is not ours")


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> MetricContext:
    """The colour bundle in FP32, timed: what a metric is asked about."""
    bundle = colour_bundle(tmp_path_factory.mktemp("metrics") / "colours")
    found = [one for one in suite.contexts(bundle.folder, precisions=["fp32"]) if one.subject.backend == "ort"]
    (timed,) = collect_samples(
        [found[0].target], SamplingPlan(processes=1, slice_s=0.02, least_s=0.05, least=10, warm_up_s=0.2)
    )
    one = found[0]
    return MetricContext(one.subject, one.target, one.artifact, timed, one.evaluations, one.no_evaluation)


@pytest.mark.slow
@pytest.mark.parametrize("name", plugin_names(metrics))
def test_every_metric_keeps_its_contract(name, context):
    assert metric_problems(name, context) == []


METRIC = '''"""A metric."""
import numpy
from ..result import Reading

def measure(context):
    """Return `p50_s`."""
    {does}
'''
BROKEN_METRICS = {
    "another name": ('return Reading("latency", {"p50_s": 1.0})', "it calls itself 'latency'"),
    "no reading": ('return {"p50_s": 1.0}', "it answers with a dict"),
    "no unit": ('return Reading("planted", {"p50": 1.0})', "it raises ValueError: the value 'p50' has no unit"),
    "an error that is not ours": ("raise OSError(2, 'gone')", "it raises FileNotFoundError"),
    "what JSON does not know": (
        'return Reading("planted", {"p50_s": 1.0}, rows=({"n": numpy.int64(3)},))', "it cannot be written"
    ),
    "rows that come back as others": (
        'return Reading("planted", {"p50_s": 1.0}, rows=({"n": (1, 2)},))', "it is another after a round trip"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_METRICS)
def test_a_broken_metric_is_found(case, context, tmp_path):
    does, problem = BROKEN_METRICS[case]
    with planted(metrics, tmp_path / "p", METRIC.replace("{does}", does)) as name:
        found = metric_problems(name, context)
    assert len(found) == 1
    assert problem in found[0]


def test_a_metric_that_says_nothing_of_itself_is_found_and_a_sound_one_has_no_problem(context, tmp_path):
    sound = METRIC.replace("{does}", 'return Reading("planted", missing="no such machine")')
    with planted(metrics, tmp_path / "a", sound) as name:
        assert metric_problems(name, context) == []
    with planted(metrics, tmp_path / "b", sound.replace('    """Return `p50_s`."""\n', "")) as name:
        assert metric_problems(name, context) == ["it is not documented"]
