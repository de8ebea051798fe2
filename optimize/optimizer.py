"""Run passes over a file, verify the result, and roll back single wrong rewrites.

Passes are deterministic, so a rewrite is rolled back by running again from the source without it. The whole result is
compared with the source once. Only if it differs, bisection over the rewrites finds the first one that causes the
difference; it is excluded and named, and all others are applied again.
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
from .passes._affine import copied_weights
from .passes._base import Outcome, Pass, RewriteFilter, Rewritten
from .recipes import channel_block, recipe
from .report import Report, Size, collect

ROUNDS = 12
MOST_ROLLED_BACK = 16
LARGE = 1 << 24  # bytes of weights that are worth a search of the whole process for cycles


class PassFailed(Exception):
    """A pass raised an error, or broke the graph; it is excluded from the run, and the report has the reason."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")


@dataclass
class PassRun:
    """One run of the passes over a source: its settings and its results."""

    source: Path
    names: tuple[str, ...]
    fold_inputs: bool
    permit: RewriteFilter
    block: int = 1
    batch: int | None = None
    sizes: Sizes = field(default_factory=dict)
    raise_opset: bool = True
    keep_shared: bool = False
    notes: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    log: list[tuple[str, list[Outcome]]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    before: Size = field(default_factory=lambda: Size(0, 0, 0))

    def rewritten(self) -> Graph:
        """Read the source and run the passes until nothing changes; repeat without a pass that fails."""
        while True:
            try:
                return self._once()
            except PassFailed as failure:
                self.failed[failure.name] = failure.reason
                self.log, self.permit.done = [], []

    def _once(self) -> Graph:
        net = read(self.source, self.fold_inputs, self.raise_opset)
        net.block, self.notes, net.keep_shared = self.block, net.notes, self.keep_shared
        fix_sizes(net, self.sizes)
        if self.batch is not None:
            fix_batch(net, self.batch)
        self.before = Size(len(net.graph.nodes), macs(net), _bytes(self.source))
        plugins = [(name, find(name)) for name in self.names if name not in self.failed]
        for _ in range(ROUNDS):
            net.refresh()
            if not self._round(net, plugins):
                break
        self.copied = copied_weights(net)
        return net

    def _round(self, net: Graph, plugins: list[tuple[str, Pass]]) -> bool:
        """Run each pass once; return whether one changed something."""
        changed = False
        for name, plugin in plugins:
            try:
                outcomes = plugin.call(net, name, self.permit)
            except ModelError:  # an error of the source: weights that cannot be read
                raise
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise PassFailed(name, reason) from error
            if name == "fold_shapes" and name not in dict(self.log):  # computed shapes are now known
                self.before = replace(self.before, macs=max(self.before.macs, macs(net)))
            self.log.append((name, outcomes))
            changed = changed or any(isinstance(outcome, Rewritten) for outcome in outcomes)
        return changed


# The last run, the size of its result, the comparison, and the rewrites rolled back, with their reasons.
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
    raise_opset: bool = True, keep_shared: bool = False,
) -> Report:  # fmt: skip
    """Rewrite an ONNX file into one with the same outputs and fewer, faster nodes.

    Inputs, outputs, their names, metadata and dynamic axes are preserved, and so is an opset from 13 on; an older one
    is converted. Declared output shapes that contradict the graph are corrected. The report's notes list both.

    Args:
        source: The file to read; its external weights are beside it.
        target_path: The file, written completely or not at all. Weights above 1.8 GB are in `<name>.data` beside it.
        target: The target: "generic", "ort-x86", "trt" or "openvino".
        verify: Compare the result with the source and roll back wrong rewrites; otherwise nothing is compared.
        samples: Real inputs to compare on, besides random ones: arrays for the first input, or dicts by name.
        passes: Run these, in this order, instead of the target's recipe.
        fold_inputs: Treat initializers that are also graph inputs as constants, and remove these inputs.
        block: The target's channel block, to which `ort-x86` pads groups of shuffled channels; None for that of this
            processor (16 with AVX-512, else 8).
        batch: Fix the dynamic first axis of the inputs (and all axes with its name) to this size; None keeps it
            dynamic.
        sizes: Fix dynamic axes of these inputs: name -> size of each axis.
        raise_opset: Convert an opset below 13, unless ONNX's converter fails or changes the outputs.
        keep_shared: Leave the weights that several layers share as they are; otherwise each layer gets its own where
            what is folded into them differs, and the report's notes say so.

    Raises:
        UsageError: An unknown target or pass, or a missing source.
        ModelError: The source is not a valid ONNX graph.
        CheckFailed: The result differs from the source even after the wrong rewrites are rolled back.
        EdgesmithError: The target cannot be written.
    """
    start, source, target_path = time.perf_counter(), model_file(source), Path(target_path)
    names = recipe(target) if passes is None else passes
    if target_path.is_dir():
        raise UsageError(f"cannot write {target_path}", got="a folder", expected="the path of a file")
    with _staged(target_path) as place:
        run = PassRun(
            source, names, fold_inputs, RewriteFilter(), channel_block(target) if block is None else block, batch,
            sizes or {}, raise_opset, keep_shared,
        )  # fmt: skip
        run, after, check, undone = _run(run, place, verify, None if samples is None else list(samples))
    undone |= {(name, "the graph"): reason for name, reason in run.failed.items()}
    reports = collect(run.log, undone)
    seconds, notes = time.perf_counter() - start, (*run.notes, *run.copied)
    return Report(str(source), str(target_path), target, reports, run.before, after, check, seconds, notes)


def _run(run: PassRun, place: Path, verify: bool, samples: list[Any] | None) -> CheckedRun:
    """Rewrite, and compare if requested; if the opset conversion changed the outputs, repeat without it."""
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
    """Run the passes and write the result; return its size."""
    with _uncollected():
        net = run.rewritten()
        write(net, place, place.with_name(place.name + ".data") if needs_data_file(net) else None)
        return Size(len(net.graph.nodes), macs(net), _bytes(place))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Pause Python's cycle collector, which traverses the growing graph repeatedly and takes one sixth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _checked(run: PassRun, after: Size, place: Path, samples: list[Any] | None) -> CheckedRun:
    """Compare with the source; find, exclude and name the rewrites that cause a difference."""
    start = time.perf_counter()
    if after.bytes >= LARGE:  # the written graph has reference cycles, which keep its weights alive
        gc.collect()
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
    """Return the first rewrite after which the result differs, by bisection over the number of allowed rewrites."""
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
    """Yield a path with the target's name in a folder beside it; its files are then moved, weights first."""
    with workplace(target) as folder:
        yield folder / target.name
        for file in sorted(folder.iterdir(), key=lambda one: one.name == target.name):
            file.replace(target.parent / file.name)


def _bytes(path: Path) -> int:
    beside = path.with_name(path.name + ".data")
    return path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)
