"""Running passes over a file, checking what they did, and undoing single rewrites that do not hold.

Passes are deterministic, so a rewrite is undone by running again from the source without it. The whole result is
compared with the source once; only when it differs is the run replayed with fewer and fewer rewrites, halving, until
the one that first makes it differ is found, banned and named; then everything else is tried again.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..runtime.common.external_data import model_file
from ..runtime.common.files import workplace
from ..runtime.common.plugins import load_plugin
from ..runtime.common.sizes import Sizes
from ..runtime.errors import CheckFailed, ModelError, UsageError
from . import comparison_inputs
from . import equivalence as checks
from . import passes as passes_package
from .equivalence import Equivalence
from .graph.graph import Graph
from .graph.input_sizes import fix_batch, fix_sizes
from .graph.reader import read
from .graph.shape_inference import macs
from .graph.writer import needs_data_file, write
from .passes._base import Outcome, Pass, RewriteFilter, Rewritten
from .recipes import channel_block, recipe
from .report import Report, Size, collect

ROUNDS = 12
MOST_ROLLED_BACK = 16


class PassFailed(Exception):
    """A pass raised an error, or broke the graph; it is left out of the run, and the report says why."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")


@dataclass
class PassRun:
    """One run of the passes over a source: what is asked, and what came out."""

    source: Path
    names: tuple[str, ...]
    fold_inputs: bool
    permit: RewriteFilter
    block: int = 1
    batch: int | None = None
    sizes: Sizes = field(default_factory=dict)
    raise_opset: bool = True
    notes: list[str] = field(default_factory=list)
    log: list[tuple[str, list[Outcome]]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    before: Size = field(default_factory=lambda: Size(0, 0, 0))

    def rewritten(self) -> Graph:
        """Read the source and run the passes until nothing changes; once more without a pass that fails."""
        while True:
            try:
                return self._once()
            except PassFailed as failure:
                self.failed[failure.name] = failure.reason
                self.log, self.permit.done = [], []

    def _once(self) -> Graph:
        net = read(self.source, self.fold_inputs, self.raise_opset)
        net.block, self.notes = self.block, net.notes
        fix_sizes(net, self.sizes)
        if self.batch is not None:
            fix_batch(net, self.batch)
        self.before = Size(len(net.graph.nodes), macs(net), _bytes(self.source))
        plugins = [(name, find(name)) for name in self.names if name not in self.failed]
        for _ in range(ROUNDS):
            net.refresh()
            if not self._round(net, plugins):
                break
        return net

    def _round(self, net: Graph, plugins: list[tuple[str, Pass]]) -> bool:
        """Run each pass once; say whether one changed something."""
        changed = False
        for name, plugin in plugins:
            try:
                outcomes = plugin.call(net, name, self.permit)
            except ModelError:  # the source's own fault: weights that cannot be read
                raise
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise PassFailed(name, reason) from error
            if name == "fold_shapes" and name not in dict(self.log):  # now shapes that were computed are known
                self.before = replace(self.before, macs=max(self.before.macs, macs(net)))
            self.log.append((name, outcomes))
            changed = changed or any(isinstance(outcome, Rewritten) for outcome in outcomes)
        return changed


# The last run, the size of what it wrote, the comparison, and the rewrites that were undone with the reason of each.
CheckedRun = tuple[PassRun, Size, Equivalence, dict[tuple[str, str], str]]


def find(name: str) -> Pass:
    """Return a pass by its name, the stem of its file.

    Raises:
        UsageError: No such pass.
    """
    graph_pass: Pass = load_plugin(passes_package, name, "pass").PASS
    return graph_pass


def optimize(
    source: str | Path, target_path: str | Path, *, target: str = "generic", verify: bool = True,
    samples: Iterable[Any] | None = None, passes: tuple[str, ...] | None = None, fold_inputs: bool = False,
    block: int | None = None, batch: int | None = None, sizes: Sizes | None = None,
    raise_opset: bool = True,
) -> Report:  # fmt: skip
    """Rewrite an ONNX file into one that computes the same with fewer and faster nodes.

    Inputs, outputs, their names, metadata and free dimensions stay as they are, and so does an opset from 13 on; an
    older one is raised. Declared output shapes that contradict the graph are corrected. The report's notes say both.

    Args:
        source: The file to read; weights in external files are found beside it.
        target_path: The file to write; whole or not there. Weights above 1.8 GB stand in `<name>.data` beside it.
        target: What it will run on: "generic", "ort-x86", "trt" or "openvino".
        verify: Compare the result with the source and roll back what does not hold; otherwise nothing is compared.
        samples: Real inputs to compare on, besides random ones: arrays for the first input, or dicts by name.
        passes: Run these, in this order, instead of the target's recipe.
        fold_inputs: Take initialisers that are also graph inputs for constants; those inputs are dropped.
        block: Channels that the target works on together, to which `ort-x86` fills up groups of shuffled channels;
            None for that of the processor here (16 with AVX-512, else 8).
        batch: Fix the free first dimension of the inputs (and whatever has its name) to this; None leaves it free.
        sizes: Fix free dimensions of these inputs: name -> size of each dimension.
        raise_opset: Raise an opset before 13, unless ONNX's converter cannot, or makes something else of the graph.

    Raises:
        UsageError: An unknown target or pass, a source that is not there.
        ModelError: The source is not a valid ONNX graph.
        CheckFailed: The result differs from the source even with the suspicious rewrites undone.
        EdgesmithError: The target cannot be written.
    """
    start, source, target_path = time.perf_counter(), model_file(source), Path(target_path)
    names = recipe(target) if passes is None else passes
    if target_path.is_dir():
        raise UsageError(f"cannot write {target_path}", got="a folder", expected="the path of a file")
    with _staged(target_path) as place:
        run = PassRun(
            source, names, fold_inputs, RewriteFilter(), channel_block(target) if block is None else block, batch,
            sizes or {}, raise_opset,
        )  # fmt: skip
        run, after, check, undone = _run(run, place, verify, None if samples is None else list(samples))
    undone |= {(name, "the graph"): reason for name, reason in run.failed.items()}
    reports = collect(run.log, undone)
    seconds, notes = time.perf_counter() - start, tuple(run.notes)
    return Report(str(source), str(target_path), target, reports, run.before, after, check, seconds, notes)


def _run(run: PassRun, place: Path, verify: bool, samples: list[Any] | None) -> CheckedRun:
    """Rewrite, and compare if asked; where raising the opset made another graph, once more without that."""
    after = _attempt(run, place)
    if not verify:
        return run, after, Equivalence("not run", "the comparison was disabled"), {}
    try:
        return _checked(run, after, place, samples)
    except CheckFailed:
        if not run.notes:
            raise
    run = replace(run, permit=RewriteFilter(), log=[], raise_opset=False)
    run, after, check, undone = _checked(run, _attempt(run, place), place, samples)
    run.notes = ["the opset is unchanged: the converted graph computes something else"]
    return run, after, check, undone


def _attempt(run: PassRun, place: Path) -> Size:
    """Run the passes and write what comes out; return its size."""
    with _uncollected():
        net = run.rewritten()
        write(net, place, place.with_name(place.name + ".data") if needs_data_file(net) else None)
        return Size(len(net.graph.nodes), macs(net), _bytes(place))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Pause Python's collector of cycles: it walks the growing graph again and again, a sixth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _checked(run: PassRun, after: Size, place: Path, samples: list[Any] | None) -> CheckedRun:
    """Compare with the source; find, ban and name the rewrites that make it differ."""
    start = time.perf_counter()
    gc.collect()  # the graph just written is made of cycles, which hold its weights
    undone: dict[tuple[str, str], str] = {}
    try:
        expected = checks.reference(run.source, samples, run.batch, run.sizes)
    except comparison_inputs.Refusal as refusal:
        return run, after, Equivalence("cannot tell", f"the source does not run here: {refusal}"), undone
    check = checks.against(expected, place)
    while check.verdict != "equal":
        if len(undone) == MOST_ROLLED_BACK or not run.permit.done:
            raise CheckFailed(
                f"the optimised {run.source.name} differs from the source",
                got=check.detail,
                expected="equal outputs",
                do="run with --no-verify and compare the files yourself, and report it",
            )
        culprit = _culprit(run, place, expected)
        undone[culprit] = check.detail
        run = replace(run, permit=RewriteFilter(banned=set(undone)), log=[])
        after = _attempt(run, place)
        check = checks.against(expected, place)
    return run, after, replace(check, seconds=time.perf_counter() - start), undone


def _culprit(run: PassRun, place: Path, expected: checks.Expected) -> tuple[str, str]:
    """Return the first rewrite after which the result differs, by halving the number that may happen."""
    good, bad = 0, len(run.permit.done)
    while bad - good > 1:
        middle = (good + bad) // 2
        _attempt(replace(run, permit=RewriteFilter(middle, set(run.permit.banned)), log=[]), place)
        if checks.against(expected, place).verdict == "equal":
            good = middle
        else:
            bad = middle
    return run.permit.done[bad - 1]


@contextlib.contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """Yield a path of the target's name in a folder beside it; what stands there moves into place, weights first."""
    with workplace(target) as folder:
        yield folder / target.name
        for file in sorted(folder.iterdir(), key=lambda one: one.name == target.name):
            file.replace(target.parent / file.name)


def _bytes(path: Path) -> int:
    beside = path.with_name(path.name + ".data")
    return path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)
