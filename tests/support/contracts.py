"""What each kind of plugin promises, as checks that say what is broken; `planted` makes a plugin of a text."""

import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx

from edgesmith.bench import metrics, result
from edgesmith.bench.measure import environment
from edgesmith.bench.measure.context import MetricContext
from edgesmith.bench.result import Reading, Result, Run
from edgesmith.optimize import optimizer, passes
from edgesmith.optimize.passes._base import Pass
from edgesmith.optimize.recipes import RECIPES
from edgesmith.runtime import backends
from edgesmith.runtime.common.plugins import load_plugin
from edgesmith.runtime.errors import DataError, EdgesmithError
from support.bundles import golden_inputs
from support.graphs import batchnorm, model

HEADINGS = ("Before:", "After:", "When:", "Why:")
EVERYWHERE = """(float[N,4,8,8] x, bool p) => (float[N,4,6,6] y, float[N,4,6,6] z) {
  c = Conv(x, w) d = BatchNormalization(c, g, b, m, v) e = Relu(d) y = Clip(e, , h)
  z = If(p)<then_branch = t () => (float[N,4,6,6] o) { o = Identity(d) },
            else_branch = f () => (float[N,4,6,6] q) { q = Neg(e) }> }"""


@contextlib.contextmanager
def planted(package: ModuleType, folder: Path, text: str, name: str = "planted") -> Iterator[str]:
    """Make a file the one plugin that a package lists, and yield its name; the others can still be imported."""
    folder.mkdir()
    (folder / f"{name}.py").write_text(text)
    file, path = package.__file__, list(package.__path__)
    package.__file__, package.__path__ = str(folder / "__init__.py"), [str(folder), *path]
    importlib.invalidate_caches()
    try:
        yield name
    finally:
        package.__file__, package.__path__ = file, path
        sys.modules.pop(f"{package.__name__}.{name}", None)
        vars(package).pop(name, None)


def pass_problems(name: str, folder: Path) -> list[str]:
    """Headings, a recipe, and on a graph with branches: interface and function kept, at rest after one run."""
    module = load_plugin(passes, name, "pass")
    text = module.__doc__ or ""
    places = [text.find(heading) for heading in HEADINGS]
    wrong = [] if -1 not in places and places == sorted(places) else ["its docstring lacks a heading"]
    if not isinstance(getattr(module, "PASS", None), Pass):
        return [*wrong, "PASS is no Pass"]
    if not any(name in recipe for recipe in RECIPES.values()):
        wrong.append("no recipe runs it")
    return wrong + _rewriting_problems(name, folder)


def _rewriting_problems(name: str, folder: Path) -> list[str]:
    source, first, second = (folder / f"{stem}.onnx" for stem in ("source", "first", "second"))
    made = model(EVERYWHERE, batchnorm(4) | {"w": (4, 4, 3, 3), "h": np.float32(0.5)})
    onnx.save(made, source)
    report = optimizer.optimize(source, first, passes=(name,))
    wrong = [f"rolled back: {why}" for one in report.passes for _, why in one.rolled_back]
    if report.check.verdict != "equal":
        wrong.append(f"the result is {report.check.verdict}")
    after = onnx.load(first)
    if (list(after.graph.input), list(after.graph.output)) != (list(made.graph.input), list(made.graph.output)):
        wrong.append("the interface changed")
    if optimizer.optimize(first, second, passes=(name,)).rewrites:
        wrong.append("it does not come to rest")
    return wrong


def backend_problems(name: str, net: Path, expected: np.ndarray, computes: bool) -> list[str]:
    """It says whether it is available and why, refuses in our own errors, and, if it `computes` ONNX files, is right.

    `net` is the colour network and `expected` its answer to `golden_inputs()`.
    """
    module = load_plugin(backends, name, "backend")
    told = module.available()
    if not (isinstance(told, tuple) and len(told) == 2 and isinstance(told[0], bool) and told[1]):
        return [f"available() says {told!r}"]
    wrong = _refusal(lambda: module.open("no/such/file", threads=1), EdgesmithError, "a file that is not there")
    if not told[0] or not computes:
        return wrong
    feeds = golden_inputs()
    hole = {key: np.where(array > 2, np.nan, array).astype(np.float32) for key, array in feeds.items()}
    with module.open(net, threads=1) as session:
        wrong += _refusal(lambda: session.run(hole), DataError, "NaN")
        wrong += _refusal(lambda: session.run({"other": feeds["input"]}), DataError, "another name")
        got = session.run(feeds)["output"]
    if got.shape != expected.shape or not np.allclose(got, expected, rtol=1e-4, atol=1e-5):
        wrong.append("its answer is wrong")
    return wrong


def _refusal(action: Callable[[], object], kind: type[Exception], what: str) -> list[str]:
    try:
        action()
    except kind:
        return []
    except Exception as error:
        return [f"{what} is a {type(error).__name__}"]
    return [f"{what} is accepted"]


def metric_problems(name: str, context: MetricContext) -> list[str]:
    """It is documented, answers with a Reading of its own name or a reason, and the record survives JSON."""
    module = load_plugin(metrics, name, "metric")
    wrong = [] if module.__doc__ and module.measure.__doc__ else ["it is not documented"]
    try:
        reading = module.measure(context)
    except EdgesmithError as error:
        reading = Reading(name, missing=str(error))
    except Exception as error:
        return [*wrong, f"it raises {type(error).__name__}: {error}"]
    if not isinstance(reading, Reading):
        return [*wrong, f"it answers with a {type(reading).__name__}"]
    if reading.metric != name:
        wrong.append(f"it calls itself {reading.metric!r}")
    run = Run("now", "bench", environment.here(), (Result(context.subject, {name: reading}),))
    try:
        again = result.run_from_dict(json.loads(json.dumps(run.to_dict(), allow_nan=False)))
    except (TypeError, ValueError) as error:
        return [*wrong, f"it cannot be written: {error}"]
    return wrong if again == run else [*wrong, "it is another after a round trip through JSON"]
