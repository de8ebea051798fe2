"""The data of the page, computed here; the page's script only draws them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ...runtime import tasks
from ...runtime.errors import DataError
from ...runtime.tasks import Task
from ..gate import compare
from ..result import Result, Run
from . import sensitivity, tables

STAGES = ("interpreter", "import", "load", "first_call")
PARTS = ("interpreter", "import", "weights", "session", "arena", "transient")
POINTS = 101  # of a cumulative distribution
Results = Sequence[tuple[int, Result]]  # with the number of the run
Names = Mapping[int, str]  # by a result's id


def page_data(runs: Sequence[Run], quantised: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the page's data for runs in the given order; consecutive runs are compared.

    Args:
        runs: The measured runs.
        quantised: Quantisation records of `edgesmith quantize --json` or of bundles, by name.
    """
    results = [(number, result) for number, run in enumerate(runs) for result in run.results]
    many, called = len(runs) > 1, short_names(results)
    return {
        "runs": [_about(run) for run in runs],
        "table": _table(results, many),
        "tradeoff": _tradeoff(results, called),
        "latency": [item for _, result in results if (item := _distribution(result, called))],
        "start": _stacked(results, "cold_start", [f"{stage}_s" for stage in STAGES], 1e3, called),
        "memory": _memory(results, called),
        "timeline": [item for _, result in results if (item := _timeline(result, called))],
        "sensitivity": sensitivity.view_sensitivity(quantised or {}),
        "layers": _layers(results, called),
        "roofline": _roofline(results, called),
        "changes": _changes(runs),
    }


def short_names(results: Results) -> dict[int, str]:
    """Name each result (by its id): model, form, and further fields that make the name unique, such as its run."""
    subjects = [result.subject for _, result in results]
    texts = [f"{one.model} {one.form}" for one in subjects]
    for tails in (
        [one.backend for one in subjects],
        [f"{one.threads} threads" for one in subjects],
        [f"batch {one.batch}" for one in subjects],
        [f"(run {number + 1})" for number, _ in results],
    ):
        if len(set(tails)) > 1:
            texts = [f"{name} {tail}" for name, tail in zip(texts, tails, strict=True)]
    if len(set(texts)) < len(texts):  # two bundles of one network: their files differ
        texts = [f"{name} {one.sha256[:8]}" for name, one in zip(texts, subjects, strict=True)]
    return {id(result): name for (_, result), name in zip(results, texts, strict=True)}


def _about(run: Run) -> dict[str, Any]:
    here = run.environment
    facts = {
        "when": run.created, "command": run.command, "processor": f"{here.cpu}, {here.cores} cores",
        "features": " ".join(here.flags), "system": here.system, "device": here.device, "power mode": here.power_mode,
        "governor": here.governor, "python": here.python,
        "packages": ", ".join(f"{name} {version}" for name, version in here.packages.items()),
    }  # fmt: skip
    return {"facts": {name: value for name, value in facts.items() if value}, "notes": tables.notes(run)}


def _table(results: Sequence[tuple[int, Result]], many: bool) -> dict[str, Any]:
    kept = tables.used([result for _, result in results])
    heads = [*(["run"] if many else []), *(column.head for column in kept)]
    rows = [
        [*([str(number + 1)] if many else []), *(column.draw(result) for column in kept)] for number, result in results
    ]
    return {"columns": heads, "rows": rows, "left": 3 + many}


def _tradeoff(results: Results, called: Names) -> dict[str, Any]:
    """Return accuracy against latency, each point with the interval of its accuracy, or `why` there are no points."""
    accuracy, source, higher = _accuracy([result for _, result in results])
    points: list[dict[str, Any]] = []
    for _, result in results:
        seconds, size = result.value("latency", "p50_s"), result.value("size", "file_bytes")
        if seconds is not None and (figures := accuracy(result)) is not None:
            top1, low, high = figures
            points.append({
                "name": called[id(result)], "family": family(result.subject.model),
                "key": result.subject.key, "ms": seconds * 1e3, "top1": top1, "low": low, "high": high,
                "mb": size / 1e6 if size else None,
            })  # fmt: skip
    front = pareto_front(
        [(point["ms"], point["top1"] if higher else -point["top1"]) for point in points],
        [(point["high"] - point["low"]) / 2 for point in points],
    )
    left_out = len(results) - len(points)
    why = "" if points else "no accuracy was measured, and no ImageNet accuracy is published for these weights"
    return {"points": points, "front": front, "accuracy": source, "left_out": left_out, "why": why}


def _accuracy(results: Sequence[Result]) -> tuple[Callable[[Result], tuple[float, float, float] | None], str, bool]:
    """Return a function that gives a result's metric and interval, its title, and whether a higher one is better.

    The measured value is used if any result has one (the hard split before the test split). Otherwise the published
    value is used, but only for networks whose weights are ImageNet's or random.
    """
    for task, (split, name) in itertools.product(tasks.with_metric(), (("hard_", "hard"), ("", "test"))):
        counts = [count for one in results if (count := _images(one, split, task)) is not None]
        if counts:
            text = f"{task.title} on the {name} split{f', {task.unit}' * bool(task.unit)}"
            return functools.partial(_measured, split, counts[0], task), text, task.higher_is_better
    return _published, "published ImageNet top-1 of the FP32 network, not measured here, %", True


def _images(result: Result, split: str, task: Task) -> float | None:
    """Return the number of images of a measured accuracy; None for random weights, and where there were no labels."""
    judged = result.subject.weights != "random" and result.value("accuracy", split + task.metric) is not None
    return result.value("accuracy", f"{split}images_count") if judged else None


def _measured(split: str, images: float, task: Task, result: Result) -> tuple[float, float, float] | None:
    name = split + task.metric
    value = result.value("accuracy", name)
    if value is None or _images(result, split, task) != images:
        return None
    low, high = result.readings["accuracy"].intervals.get(name, (value, value))
    return task.scale * value, task.scale * low, task.scale * high


def _published(result: Result) -> tuple[float, float, float] | None:
    top1 = tables.imagenet_top1(result) if result.subject.weights in ("imagenet", "random") else None
    return None if top1 is None else (top1, top1, top1)


def family(model: str) -> str:
    """Return the leading letters of a network's name: «mobilenetv2» and «mobilenetv3_small» are «mobilenet»."""
    letters = model.lower().replace("_", "").rstrip("0123456789")
    head = "".join(character if character.isalpha() else " " for character in letters).split()
    return head[0].removesuffix("v").removesuffix("x") if head else model


def pareto_front(points: Sequence[tuple[float, float]], errors: Sequence[float] = ()) -> list[int]:
    """Return the indices of the Pareto-optimal points (lower first value, higher second value), fastest first.

    Args:
        points: Latency and accuracy.
        errors: Half the interval of each accuracy: a slower point must be better by more than the sum of both errors.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        margin = math.hypot(errors[index], errors[front[-1]]) if errors and front else 0.0
        if not front or points[index][1] > points[front[-1]][1] + margin:
            front.append(index)
    return front


def _distribution(result: Result, called: Names) -> dict[str, Any] | None:
    reading = result.readings.get("latency")
    if reading is None or not reading.samples:
        return None
    shares = np.linspace(0, 100, POINTS)
    values = np.percentile(np.concatenate(reading.samples) * 1e3, shares)
    points = [[round(float(ms), 5), float(share)] for ms, share in zip(values, shares, strict=True)]
    return {"name": called[id(result)], "points": points}


def _stacked(results: Results, metric: str, keys: Sequence[str], scale: float, called: Names) -> dict[str, Any]:
    """Return bars of stages; a negative growth is drawn as 0."""
    kept = [(called[id(result)], result) for _, result in results if result.value(metric, keys[0]) is not None]
    series = [
        {
            "name": key.rsplit("_", 1)[0].replace("_", " "),
            "values": [round(max(0.0, (result.value(metric, key) or 0.0) * scale), 3) for _, result in kept],
        }
        for key in keys
    ]
    return {"names": [name for name, _ in kept], "series": series}


def _memory(results: Results, called: Names) -> dict[str, Any]:
    """Return memory by purpose; for results in an older format, the growth in each stage."""
    old = any(one.value("memory", "load_bytes") is not None and one.value("memory", "weights_bytes") is None
              for _, one in results)  # fmt: skip
    return _stacked(results, "memory", [f"{part}_bytes" for part in (STAGES if old else PARTS)], 1e-6, called)


def _timeline(result: Result, called: Names) -> dict[str, Any] | None:
    """Return the resident size of a fresh process over time, in milliseconds and megabytes, with its stages."""
    reading = result.readings.get("memory")
    if reading is None or not reading.rows:
        return None
    points = [[round(1e3 * row["seconds"], 1), round(1e-6 * row["resident_bytes"], 2)] for row in reading.rows]
    stages = [str(row["stage"]).replace("_", " ") for row in reading.rows]
    return {"name": called[id(result)], "points": points, "stages": stages}


def _layers(results: Results, called: Names) -> dict[str, Any]:
    """Return milliseconds by operator type for each profiled subject, and every operator as a row."""
    kept = [
        (called[id(result)], result.readings["layers"].rows)
        for _, result in results
        if "layers" in result.readings and result.readings["layers"].rows
    ]
    spent: dict[str, list[float]] = {}
    for index, (_, rows) in enumerate(kept):
        for row in rows:
            spent.setdefault(row["op"], [0.0] * len(kept))[index] += 1e3 * row["seconds"]
    kinds = sorted(spent, key=lambda kind: -sum(spent[kind]))
    return {
        "names": [name for name, _ in kept],
        "series": [{"name": kind, "values": [round(value, 4) for value in spent[kind]]} for kind in kinds],
        "rows": [
            [
                name,
                row["layer"],
                row["op"],
                row["dtype"],
                row["shape"],
                round(1e6 * row["seconds"], 2),
                None if row["macs"] is None else round(row["macs"] / 1e6, 4),
            ]
            for name, rows in kept
            for row in rows
        ],
    }


def _roofline(results: Results, called: Names) -> dict[str, Any]:
    """Return each subject's rate against its multiply-accumulates per byte of weights, and the machine's ceilings."""
    points, roofs = [], dict[str, list[list[float]]]()
    for _, result in results:
        reading, seconds = result.readings.get("roofline_share"), result.value("latency", "p50_s")
        size = result.value("size", "file_bytes")
        if reading is None or reading.missing or not seconds or not size or not reading.values["run_macs_count"]:
            continue
        macs = reading.values["run_macs_count"]
        points.append({"name": called[id(result)], "x": macs / size, "y": macs / seconds * 1e-9})
        peak, moved = (reading.values[f"peak_{name}_per_s"] * 1e-9 for name in ("macs", "bytes"))
        kind = "INT8" if result.subject.precision == "int8" else "FP32"
        name = f"{kind} ceiling, {result.subject.threads or 'all'} threads"
        roofs[name] = [[x, min(peak, moved * x)] for x in sorted((0.1, peak / moved, 1e4))]
    return {"points": points, "roofs": [{"name": name, "points": line} for name, line in roofs.items()]}


def _changes(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Compare consecutive runs; for runs that cannot be compared, return the reason."""
    changes: list[dict[str, Any]] = []
    for number, (base, new) in enumerate(pairwise(runs), 1):
        title = f"run {number} to run {number + 1}"
        try:
            comparisons = compare.compare_runs(base, new)
        except DataError as error:
            changes.append(
                {"runs": title, "subject": "all", "answer": "cannot tell", "why": str(error), "change": None}
            )
            continue
        for item in comparisons:
            change = 100 * (item.ratio.estimate - 1) if item.ratio else None
            changes.append(
                {"runs": title, "subject": item.key, "answer": item.answer, "why": item.why, "change": change}
            )
    return changes
