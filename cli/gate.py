"""`edgesmith gate`: test whether a new version is slower, for people and for CI."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..bench.gate.ci_reports import GateFinding
from ..runtime.common.names import split_words
from ..runtime.common.progress import note, progress
from ..runtime.errors import EdgesmithError, NotAvailable, UsageError
from .console import command, emit, overwrite, table

if TYPE_CHECKING:
    from ..bench.gate.gate import Rule
    from ..bench.measure.context import MetricContext

# findings to print, their records for JSON, and their exit codes
GateAnswers = tuple[list[GateFinding], list[dict[str, object]], list[int]]


@command("gate")
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--baseline",
    required=True,
    help="The base version: a path, a git revision of NEW's own path, or a result of `edgesmith bench` (.json).",
)
@click.option("--threshold", default=0.03, show_default=True, help="Smallest slowdown that counts.")
@click.option("--max-seconds", default=120.0, show_default=True, help="Maximum time for each comparison.")
@click.option("--also", default="", help="Further gates, without noise: memory,size,accuracy,instructions,kernels.")
@click.option("--precision", default="", help="Only these forms of a bundle.  [default: the best one on this machine]")
@click.option("--threads", default=1, show_default=True, help="Threads of a CPU backend.")
@click.option("--shape", default="", metavar="[NAME=]1x3x320x320", help="Shape of inputs with dynamic axes.")
@click.option(
    "--data", default="", help="With --also accuracy: labelled images.  [default: digits, if trained on them]"
)
@click.option("--junit", "junit_path", type=click.Path(path_type=Path), help="Write JUnit XML here.")
@click.option("--markdown", "markdown_path", type=click.Path(path_type=Path), help="Write a Markdown summary here.")
@click.option("--github", is_flag=True, help="Print GitHub annotations, and add to the job's summary.")
@overwrite
def gate_command(
    new: Path, baseline: str, threshold: float, max_seconds: float, also: str, precision: str, threads: int,
    shape: str, data: str, junit_path: Path | None, markdown_path: Path | None, github: bool, overwrite: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Measure NEW (a bundle, .onnx, .engine or .py file) against a baseline until the answer is known.

    Faster or same: exit 0; slower: exit 1; cannot tell, or nothing could be measured: exit 3.
    """
    from ..bench.gate.gate import Rule
    from ..runtime.outputs import claim

    if not 0 < threshold < 1 or max_seconds <= 0:
        raise UsageError("the threshold or the time is not valid", got=f"{threshold}, {max_seconds} s",
                         expected="a share between 0 and 1, and more than 0 s")  # fmt: skip
    words = _words(also)
    _check_data(data, words, new)
    for path, kind in ((junit_path, "junit"), (markdown_path, "markdown")):
        if path:
            claim(path, kind, overwrite=overwrite)
    if baseline.endswith(".json"):
        name = f"stored latency {new.name}"
        answers = _tried(
            name, lambda: _against_stored(Path(baseline), new, threshold, precision, threads, words, shape, max_seconds)
        )
    else:
        rule = Rule(threshold=threshold, most_s=max_seconds)
        answers = _tried(
            f"latency {new.name}", lambda: _beside(baseline, new, rule, precision, threads, words, shape, data)
        )
    findings, records, codes = answers
    emit(
        records,
        as_json,
        lambda: table("", ["what", "answer", "why"], [[f.name, f.answer, f.why] for f in findings], left=3),
    )
    _announce(findings, junit_path, markdown_path, github)
    return 1 if 1 in codes else max(codes)


def _tried(name: str, question: Callable[[], GateAnswers]) -> GateAnswers:
    """Run the comparison; a failed measurement is a finding too: «cannot tell» with its reason, never «slower».

    Raises:
        UsageError: Wrong options or arguments.
    """
    try:
        return question()
    except UsageError:
        raise
    except EdgesmithError as error:
        record = {"gate": name.split()[0], "subject": name, "answer": "cannot tell", "why": str(error)}
        return [GateFinding(name, "cannot tell", str(error))], [{**record}], [NotAvailable.exit_code]


def _beside(
    baseline: str, new: Path, rule: Rule, precision: str, threads: int, words: list[str], shape: str, data: str
) -> GateAnswers:  # fmt: skip
    """Measure both versions in turns, then compare the kernels if requested."""
    from ..bench.gate.thresholds import KERNELS
    from ..runtime.common.files import scratch

    with scratch("base") as folder:
        base = _base(baseline, new, folder)
        both = _common(base, new, precision, threads, shape, data)
        answers = _ask(both, rule, [word for word in words if word != KERNELS])
        return (
            _joined(answers, _tried(f"kernels {new.name}", lambda: _kernels(base, new)))
            if KERNELS in words
            else answers
        )


def _joined(one: GateAnswers, other: GateAnswers) -> GateAnswers:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _base(baseline: str, new: Path, folder: Path) -> Path:
    from ..bench.gate.baseline import at_revision

    return Path(baseline) if Path(baseline).exists() else at_revision(baseline, new, folder)


def _words(text: str) -> list[str]:
    from ..bench.gate.thresholds import KERNELS, LIMITS

    words = split_words(text)
    if unknown := [word for word in words if word not in (*LIMITS, KERNELS)]:
        raise UsageError(f"unknown gate {unknown[0]!r}", expected=", ".join((*LIMITS, KERNELS)))
    return words


def _check_data(data: str, words: list[str], new: Path) -> None:
    """Refuse data without the truth that the accuracy needs, before anything is measured."""
    from ..bench.measure.workload import FILES
    from ..runtime import datasets
    from ..runtime.bundle.bundle import read_bundle
    from ..runtime.tasks import CLASS, find

    if data and "accuracy" not in words:
        raise UsageError("--data is for the accuracy", got="no --also accuracy", do="add --also accuracy")
    if data:
        truth = CLASS if new.suffix in FILES else find(read_bundle(new).spec.task).truth
        datasets.load(data, "test").require_truth(truth or CLASS, "--also accuracy")


def _kernels(base: Path, new: Path) -> GateAnswers:
    from ..bench.gate.thresholds import KERNELS, kernel_limits

    limited = kernel_limits(base, new)
    findings = [GateFinding(f"kernels {new.name}", one.answer, one.why) for one in limited]
    return findings, [{"gate": KERNELS, **one.to_dict()} for one in limited], [one.exit_code for one in limited]


def _against_stored(
    stored: Path, new: Path, threshold: float, precision: str, threads: int, also: list[str], shape: str,
    max_seconds: float,
) -> GateAnswers:  # fmt: skip
    """Measure NEW alone, together with the reference workload, and compare it with the stored result."""
    from ..bench import suite
    from ..bench.gate import compare
    from ..bench.measure.interleave import SamplingPlan
    from ..bench.result import read_run

    if also:
        got = f"--also {','.join(also)}"
        raise UsageError("a stored result can be compared only by latency", got=got, do="leave --also out")
    base = read_run(stored)
    forms = [word for word in precision.split(",") if word]
    subjects = suite.contexts(new, precisions=forms, threads=threads, shape=shape)
    plan = SamplingPlan(processes=5, timeout_s=min(SamplingPlan.timeout_s, max_seconds))
    with progress(f"latency of {new.name}", plan.processes * (len(subjects) + 1) + len(subjects)) as advance:
        run = suite.run_suite(subjects, plan, only=["latency"], reference=True, progress=advance)
    answers = compare.compare_runs(base, run, threshold=threshold, other_machine=True, calibrate=True)
    findings = [GateFinding(f"latency {one.key}", one.answer, one.why) for one in answers]
    records = [{"gate": "stored latency", "subject": one.key, **one.to_dict()} for one in answers]
    return findings, records, [compare.EXIT[one.answer] for one in answers]


def _common(
    base: Path, new: Path, precision: str, threads: int, shape: str, data: str
) -> list[tuple[MetricContext, MetricContext]]:
    """Pair the forms that both versions have; without a precision only the form that the runtime would choose."""
    from ..bench.measure.workload import FILES
    from ..bench.suite import contexts

    forms = [word for word in precision.split(",") if word]
    sides = [contexts(path, precisions=forms, threads=threads, shape=shape, data=data or None) for path in (base, new)]
    if base.suffix in FILES:
        return [(sides[0][0], sides[1][0])]
    theirs = {(context.subject.form, context.subject.backend): context for context in sides[0]}
    pairs = [(theirs[key], one) for one in sides[1] if (key := (one.subject.form, one.subject.backend)) in theirs]
    if not pairs:
        raise UsageError("the two bundles have no form in common", got=str(sorted(form for form, _ in theirs)))
    return pairs if forms else pairs[:1]


def _ask(both: list[tuple[MetricContext, MetricContext]], rule: Rule, also: list[str]) -> GateAnswers:
    """Run every comparison; return the findings, their records, and their exit codes."""
    answers: GateAnswers = ([], [], [])
    for pair in both:
        key = pair[1].subject.key
        answers = _joined(answers, _tried(f"latency {key}", functools.partial(_latency, *pair, rule)))
        if also:
            answers = _joined(answers, _tried(f"{also[0]} {key}", functools.partial(_limits, *pair, also, rule.most_s)))
    return answers


def _latency(base: MetricContext, new: MetricContext, rule: Rule) -> GateAnswers:
    from ..bench.gate.gate import gate

    with progress(f"latency of {new.subject.key}", rule.most_pairs) as advance:
        outcome = gate(base.target, new.target, rule, progress=advance)
    finding = GateFinding(f"latency {new.subject.key}", outcome.answer, outcome.why, outcome.seconds)
    return [finding], [{"gate": "latency", "subject": new.subject.key, **outcome.to_dict()}], [outcome.exit_code]


def _limits(base: MetricContext, new: MetricContext, metrics: list[str], most_s: float) -> GateAnswers:
    """Compare values that need no statistics, each within `most_s` seconds for both versions together."""
    from ..bench.gate.thresholds import check_limit
    from ..bench.measure import clock
    from ..bench.measure.interleave import SamplingPlan
    from ..bench.suite import run_suite

    limited = []
    for metric in metrics:
        end = clock.now_ns() + round(most_s * 1e9)
        sides = [dataclasses.replace(one, end=end) for one in (base, new)]
        run = run_suite(sides, SamplingPlan(processes=0, timeout_s=most_s), only=[metric])
        limited.append(check_limit(metric, run.results[0], run.results[1]))
    findings = [GateFinding(f"{one.metric} {new.subject.key}", one.answer, one.why) for one in limited]
    records: list[dict[str, object]] = [
        {"gate": one.metric, "subject": new.subject.key, **one.to_dict()} for one in limited
    ]
    return findings, records, [one.exit_code for one in limited]


def _announce(findings: list[GateFinding], junit_path: Path | None, markdown_path: Path | None, github: bool) -> None:
    from ..bench.gate.ci_reports import github_annotations, junit_xml, markdown_summary
    from ..bench.report.tables import write_text

    for path, text in ((junit_path, junit_xml(findings)), (markdown_path, markdown_summary(findings))):
        if path:
            note(f"wrote {write_text(path, text)}")
    if github:
        click.echo(github_annotations(findings))
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(markdown_summary(findings))
