"""What each kind of plugin promises, as checks that say what is broken; `planted` makes a plugin of a text."""

import contextlib
import functools
import importlib
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx

from edgesmith.bench import metrics, result
from edgesmith.bench.measure import environment
from edgesmith.bench.measure.context import MetricContext
from edgesmith.bench.result import Reading, Result, Run
from edgesmith.optimize import optimizer, passes
from edgesmith.optimize.passes._base import Pass
from edgesmith.optimize.quantize.quant_params import KINDS as GRIDS
from edgesmith.optimize.quantize.targets import find_target
from edgesmith.optimize.recipes import recipes
from edgesmith.runtime import backends, targets, tasks
from edgesmith.runtime.common.plugins import load_plugin, plugin_names
from edgesmith.runtime.datasets.truths import KINDS, Instances
from edgesmith.runtime.engines.flavour import MODULES, PRECISIONS
from edgesmith.runtime.errors import DataError, EdgesmithError
from edgesmith.runtime.images.settings import Preprocess
from edgesmith.runtime.targets._row import TargetRow
from edgesmith.runtime.tasks import DecodeContext, Task
from support.bundles import golden_inputs
from support.graphs import batchnorm, model

ROOT = Path(__file__).resolve().parents[2]


def recipe(heading: str) -> str:
    """Return the file that a recipe of CONTRIBUTING.md shows."""
    part = (ROOT / "CONTRIBUTING.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return textwrap.dedent(re.search(r"^ *```py\n(.*?)^ *```", part, re.MULTILINE | re.DOTALL)[1])


HEADINGS = ("Before:", "After:", "When:", "Why:")
EVERYWHERE = """(float[N,4,8,8] x, bool p) => (float[N,4,6,6] y, float[N,4,6,6] z) {
  c = Conv(x, w) d = BatchNormalization(c, g, b, m, v) e = Relu(d) y = Clip(e, , h)
  z = If(p)<then_branch = t () => (float[N,4,6,6] o) { o = Identity(d) },
            else_branch = f () => (float[N,4,6,6] q) { q = Neg(e) }> }"""


@contextlib.contextmanager
def planted(package: ModuleType, folder: Path, text: str, name: str = "planted", beside: bool = False) -> Iterator[str]:
    """Make a file the one plugin that a package lists, and yield its name; the others can still be imported.

    With `beside` the package lists its own plugins too.
    """
    folder.mkdir()
    for path in Path(str(package.__file__)).parent.glob("*.py") if beside else ():
        shutil.copyfile(path, folder / path.name)
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
        return [*wrong, "PASS is not a Pass"]
    if not any(name in recipe for recipe in recipes().values()):
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


def target_problems(name: str) -> list[str]:
    """Its row is documented, names what there is, and makes a Q/DQ form where it has INT8."""
    module = load_plugin(targets, name.replace("-", "_"), "target")
    row = getattr(module, "ROW", None)
    if not isinstance(row, TargetRow):
        return ["ROW is not a TargetRow"]
    wrong = [] if module.__doc__ else ["it is not documented"]
    wrong += [f"no backend {one}" for one in row.backends if one not in plugin_names(backends)]
    wrong += [f"no pass {one}" for one in row.passes if one not in plugin_names(passes)]
    wrong += [f"no precision {one}" for one in row.precisions if one not in PRECISIONS]
    if row.engine not in ("", *MODULES):
        wrong.append(f"no TensorRT {row.engine}")
    if row.device not in ("cpu", "gpu"):
        wrong.append(f"no device {row.device}")
    if row.channel_blocks and row.channel_blocks[-1][0]:
        wrong.append("no channel block for the other processors")
    if ("int8" in row.precisions) != (row.qdq is not None):
        wrong.append("INT8 without Q/DQ rules, or rules without INT8")
    if any(place is not None and not 0 <= place < targets.FP32 for place in (row.place, row.place_elsewhere)):
        wrong.append("its place is none before FP32")
    return wrong + (_form_problems(name) if row.qdq is not None else [])


def _form_problems(name: str) -> list[str]:
    try:
        form = find_target(name)
    except (TypeError, KeyError) as error:
        return [f"no form: {error}"]
    return [] if form.activation_dtype in GRIDS else [f"no activations {form.activation_dtype}"]


def drawn(shape: tuple[int, ...]) -> np.ndarray:
    """Return random numbers from 0 to 1; of a shape always the same ones."""
    return np.random.default_rng(3).random(shape, dtype=np.float32)


Known = functools.partial(SimpleNamespace, size=(16, 12))  # what is known of one image
CONTEXT = DecodeContext(("a", "b"), "", 2, most=3)
# Kind of truth -> truths of so many images, with two classes.
TRUTHS = {
    "class": lambda count: np.arange(count) % 2,
    "boxes": lambda count: [one_object(number % 2) for number in range(count)],
    "masks": lambda count: [Known(pixels=lambda: np.arange(192).reshape(16, 12) % 2)] * count,
    "targets": lambda count: [Known(pixels=lambda: np.full((16, 12, 3), 90, np.uint8))] * count,
    "image": lambda count: [Known(pixels=lambda: np.full((16, 12, 3), 90, np.uint8))] * count,
    "depth": lambda count: [Known(metres=lambda: np.ones((16, 12)))] * count,
    "values": lambda count: [Known(values=tuple(row)) for row in drawn((count, 7))],
    "label sets": lambda count: [Known(labels=np.array([at % 7])) for at in range(count)],
    "text": lambda count: [Known(text="ab" * 9)] * count,
    "identity": lambda count: [Known(name=str(at), label=at % 2, same=()) for at in range(count)],
    "anomalies": lambda count: [Known(anomalous=at % 2 == 0, bank=lambda: np.eye(7)) for at in range(count)],
    "keypoints": lambda count: [Known(keypoints=np.ones((1, 1, 3)), boxes=np.array([[0, 0, 9, 9]]), areas=np.ones(1),
                                      crowd=np.zeros(1, bool))] * count,
}  # fmt: skip
# Task -> the context in which its outputs mean something, if not this one.
CONTEXTS = {"detect": replace(CONTEXT, decoder={"head": "yolo"}, preprocess=Preprocess((64, 64), 0))}
SHAPES = ((1,), (4,), (7,), (6, 20), (3, 6, 5), (9, 3), (1, 16, 12))  # of one image's first output


def task_problems(name: str) -> list[str]:
    """It is documented, and on random outputs whose shape it takes it decodes, shows, draws, compares and scores."""
    module = load_plugin(tasks, name, "task")
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        return ["TASK is not a Task"]
    wrong = [] if module.__doc__ and type(task).__doc__ else ["it is not documented"]
    if bool(task.truth) != bool(task.metric) or task.truth not in ("", *KINDS):
        wrong.append("a truth without a metric, or a metric without a truth that there is")
    context = CONTEXTS.get(name, CONTEXT)
    batches = [drawn((12, *shape)) for shape in SHAPES]
    fitting = [batch for batch in batches if task.fits({"o": batch[0]}, context)]
    return [*wrong, *(_batch_problems(task, fitting[-1], context) if fitting else ["no output fits it"])]


def _batch_problems(task: Task, batch: np.ndarray, context: DecodeContext) -> list[str]:
    try:
        return [*_answer_problems(task, batch[0], context), *_judge_problems(task, batch, context)]
    except Exception as error:
        return [f"it raises {type(error).__name__}: {error}"]


def _answer_problems(task: Task, output: np.ndarray, context: DecodeContext) -> list[str]:
    wrong, image = [], np.full((20, 30, 3), 90, np.uint8)
    answer, row = task.decode({"o": output}, context), task.show({"o": output}, context)
    try:
        text = task.line(json.loads(json.dumps(row, allow_nan=False)))
    except (TypeError, ValueError) as error:
        return [f"what it shows cannot be written: {error}"]
    if not isinstance(text, str) or not text or "\n" in text:
        wrong.append(f"its line is {text!r}")
    drawn = task.draw(image, answer)
    if drawn is not None and (drawn.shape[2:] != (3,) or drawn.dtype != np.uint8 or np.array_equal(drawn, image)):
        wrong.append("what it draws is not a picture with an answer on it")
    return [*wrong, "it draws on the image itself"] if (image != 90).any() else wrong


def _judge_problems(task: Task, batch: np.ndarray, context: DecodeContext) -> list[str]:
    wrong, other = [], reduced(task, np.random.default_rng(4).random(batch.shape, dtype=np.float32) * 9, context)
    mine = reduced(task, batch, context)
    if task.agreement(mine, mine, context) not in (None, 1.0):
        wrong.append("it does not agree with itself")
    if task.agreement(mine, mine, context) is not None and not 0 <= (task.agreement(mine, other, context) or 0.0) < 1:
        wrong.append("it agrees with anything")
    if task.truth:
        score = task.score(mine, TRUTHS[task.truth](len(batch)), context)
        share = task.metric.endswith("_ratio")
        if not 0 <= score.values.get(task.metric, -1.0) <= (1 if share else np.inf):
            wrong.append(f"its score has no {'share ' * share}{task.metric}")
        if not set(score.intervals) <= set(score.values):
            wrong.append("an interval of no value")
        if any({"class", "images_count", task.metric} - set(row) for row in score.by_class):
            wrong.append("a class without its metric")
    return wrong


def one_object(label: int) -> Instances:
    """Return an image of 64x64 with one object."""
    box = np.array([[0.0, 0.0, 1.0, 1.0]])
    return Instances((64, 64), box, np.array([label]), np.zeros(1, bool), np.ones(1))


def reduced(task: Task, batch: np.ndarray, context: DecodeContext) -> dict[str, Any]:
    """Return what the task keeps of N images with one output."""
    parts = [task.reduce({"o": one}, context) for one in batch]
    return {name: [part[name] for part in parts] for name in parts[0]}


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
