"""`edgesmith bench --all`: the long table, one network after another, resumable, within a time limit.

Each network's forms and backends are measured in turns, together with the reference workload, and the result is written
before the next network starts. The same command continues where it stopped; results from another machine, other package
versions or other files are measured again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.common.progress import note, progress
from ..runtime.errors import EdgesmithError

if TYPE_CHECKING:
    from ..bench.measure.context import MetricContext
    from ..bench.measure.interleave import SamplingPlan
    from ..bench.result import Reading, Result, Run

NETWORKS = (
    "mobilenetv1", "mobilenetv2", "mobilenetv3_small", "mobilenetv3_large", "shufflenetv1_g3", "shufflenetv2",
    "squeezenet1_1", "mnasnet1_0", "efficientnet_b0", "regnet_y_400mf", "resnet18", "resnet50",
)  # fmt: skip
BOARDS = (
    ("Jetson Nano 4GB", "fp16"), ("Jetson Xavier NX 8/16GB", "int8"), ("Jetson Orin Nano 8GB", "fp16"),
    ("Jetson Orin Nano 8GB", "int8"), ("Jetson AGX Orin 64GB", "int8"),
)  # fmt: skip


def measure_table(
    names: Sequence[str], bundles: Path, folder: Path, plan: SamplingPlan, minutes: float, threads: int
) -> Run:
    """Measure the networks without a result in the folder, and return all results as one run.

    Args:
        names: Networks.
        bundles: The folder of bundles; missing bundles are made.
        folder: The folder of results, one per network.
        plan: How long each process measures.
        minutes: A network is not started if, at the mean time per network, it would end later than this.
        threads: Number of threads of a CPU backend.

    Raises:
        EdgesmithError: None of the networks gave a result.
    """
    from ..bench.measure import clock

    parts: list[Run] = []
    began, spent, left = clock.now_ns(), list[float](), list[str]()
    with progress("networks", len(names)) as advance:
        for name in names:
            start = clock.now_ns()
            if (old := _stored(name, bundles, folder, threads)) is not None:
                parts.append(old)
            elif (start - began) * 1e-9 + (max(spent) if spent else 0.0) > 60 * minutes:
                left.append(name)
            elif (part := _one(name, bundles, folder, plan, threads)) is not None:
                parts.append(part)
                spent.append((clock.now_ns() - start) * 1e-9)
                note(f"{name}: {spent[-1]:.0f} s")
            advance(1)
    if left:
        note(f"no time was left for {', '.join(left)}; do: run the same command again; it continues with them")
    if not parts:
        raise EdgesmithError("no network could be measured", do="see the reasons above")
    return together(parts)


def together(parts: Sequence[Run]) -> Run:
    """Join the runs of several networks on one machine into one run."""
    last = parts[-1]
    results = tuple(result for part in parts for result in part.results)
    return replace(last, results=results, reference=tuple(group for part in parts for group in part.reference))


def _stored(name: str, bundles: Path, folder: Path, threads: int) -> Run | None:
    """Return the stored result of a network, unless it is from another machine, other packages or other files."""
    from ..bench import result
    from ..bench.measure import environment
    from ..export.untrained import place

    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    try:
        run = result.read_run(path)
        now = _contexts(place(name, bundles), FORMS, threads)
    except EdgesmithError as error:
        note(f"{name} is measured again: {error}")
        return None
    here = environment.here()
    same = run.environment.machine() == here.machine() and run.environment.packages == here.packages
    subjects, stored = ({(one.subject.key, one.subject.sha256) for one in side} for side in (now, run.results))
    return run if same and subjects == stored else None


def _one(name: str, bundles: Path, folder: Path, plan: SamplingPlan, threads: int) -> Run | None:
    """Measure one network and write the result; print the reason if it fails."""
    from ..bench import result, suite
    from ..export.untrained import ensure

    try:
        subjects = _contexts(ensure(name, bundles), FORMS, threads)
        run = suite.run_suite(subjects, plan, only=[*suite.usual_metrics(), "engines"], reference=True)
        run = with_digits_accuracy(with_boards(run, name), bundles)
    except EdgesmithError as error:
        note(f"{name} is skipped: {error}")
        return None
    result.write_run(run, folder / f"{name}.json")
    return run


def _contexts(path: Path, forms: Sequence[str], threads: int) -> list[MetricContext]:
    from ..bench import suite

    return suite.contexts(path, precisions=forms, threads=threads)


def with_boards(run: Run, name: str) -> Run:
    """Add the modelled latency on each board of BOARDS to the first result: it is the network's, not a form's."""
    first, *rest = run.results
    return replace(run, results=(replace(first, readings={**first.readings, "modelled": modelled(name)}), *rest))


def modelled(name: str) -> Reading:
    """Return the expected seconds per image on each board, with the range that contains two of three cases."""
    from ..bench.devices import catalogue, roofline
    from ..bench.result import Reading
    from ..models import complexity

    network = complexity.describe_network(name)
    values, intervals = dict[str, float](), dict[str, tuple[float, float]]()
    for board, precision in BOARDS:
        estimate = roofline.estimate_latency(network, catalogue.find_device(board), precision)
        key = f"{re.sub('[^a-z0-9]+', '_', board.lower().removeprefix('jetson '))}_{precision}_s"
        values[key], intervals[key] = estimate.expected_s, (estimate.low_s, estimate.high_s)
    why = f"modelled, not measured: two thirds are within a factor of {roofline.SPREAD}, all within {roofline.WORST}"
    return Reading("modelled", values, intervals, notes=(why,))


FORMS = ("fp32", "int8-ort-x86")


def with_digits_accuracy(run: Run, folder: Path) -> Run:
    """Add to each result, with a note, the accuracy of the digits-trained bundle of its network and form."""
    return replace(run, results=tuple(_with_digits(result, folder) for result in run.results))


def _with_digits(result: Result, folder: Path) -> Result:
    from ..bench import suite
    from ..bench.metrics import accuracy

    subject, path = result.subject, folder / result.subject.model
    try:
        twins = suite.contexts(path, precisions=[subject.form])
    except EdgesmithError:
        missing = f"no digits-trained bundle at {path}; make it with `make export MODEL={subject.model}`"
        reading = replace(result.readings["accuracy"], missing=missing)
    else:
        measured = accuracy.measure(twins[0])
        reading = replace(
            measured, notes=(*measured.notes, "of the network trained on digits (64x64, 10 classes), not of this one")
        )
    return replace(result, readings={**result.readings, "accuracy": reading})
