"""`make zoo-table`: every network of the zoo through the pipeline with random weights, one row each; resumable.

Each network runs in a child process of its own, on one thread, and leaves one JSON file; a second call does only those
that are not done. One that takes too long is ended with its builds, and keeps what it had. The table is drawn from the
files: parameters, MACs, published error, export time, nodes before and after our passes, parity, engines for FP16 and
INT8, median latency in ONNX Runtime at batch 1.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from edgesmith.bench.measure import environment
from edgesmith.cli.console import guarded
from edgesmith.models import catalog
from edgesmith.runtime.common import child_process as child
from edgesmith.runtime.common.files import atomic_file
from edgesmith.runtime.common.progress import note
from edgesmith.runtime.errors import EdgesmithError, NotAvailable

BIGGEST = 150_000_000
RUNS, WARM_UP, LONGEST_NS = 15, 3, 15_000_000_000
GRACE_S = 15
IMAGES = 8  # weights are random, so that there is no accuracy for more images to keep
COLUMNS = (
    "network", "params M", "MACs M", "top-1 error %", "export s", "nodes before", "after", "parity", "FP16 engines",
    "INT8 engines", "ORT p50 ms", "s in all",
)  # fmt: skip


@click.command()
@click.argument("names", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/zoo"), show_default=True)
@click.option("--sm", "sms", multiple=True, default=("8.6", "8.9", "12.0"), show_default=True, help="Repeatable.")
@click.option("--timeout", "timeout_s", default=600, show_default=True, help="Seconds for one network.")
@click.option("--jobs", default=2, show_default=True, help="Networks at a time, each on one thread.")
@click.option("--one", is_flag=True, hidden=True)
def main(names: tuple[str, ...], out: Path, sms: tuple[str, ...], timeout_s: int, jobs: int, one: bool) -> None:
    """Measure NAMES (all up to 150 M parameters when none is given) and write OUT/zoo.md."""
    if one:
        sys.exit(guarded(lambda: _record(names[0], out, sms)))
    sys.exit(guarded(lambda: _all(names or _default(), out, sms, timeout_s, jobs)))


def _default() -> tuple[str, ...]:
    """Return the networks up to BIGGEST, those with few operations first."""
    kept = [
        entry for entry in map(catalog.find_network, catalog.network_names()) if (entry.figures.params or 0) <= BIGGEST
    ]
    return tuple(entry.name for entry in sorted(kept, key=lambda entry: entry.figures.macs or math.inf))


def _all(names: tuple[str, ...], out: Path, sms: tuple[str, ...], timeout_s: int, jobs: int) -> None:
    names = tuple(catalog.find_network(name).name for name in names)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for number, line in enumerate(pool.map(lambda name: _child(name, out, sms, timeout_s), names), start=1):
            note(f"{number}/{len(names)} {line}")
    with atomic_file(out / "zoo.md") as temporary:
        temporary.write_text(markdown(out), encoding="utf-8")
    note(f"table in {out / 'zoo.md'}")


def _child(name: str, out: Path, sms: tuple[str, ...], timeout_s: int) -> str:
    """Measure one network in a process of its own, unless that was done before; return a line that says how it went."""
    if _read(out, name).get("done"):
        return f"{name}: was done"
    wanted = [option for sm in sms for option in ("--sm", sm)]
    command = child.python(f"{__package__}.zoo_table", name, "--one", "--out", str(out), *wanted)
    began = time.monotonic()
    reason = _ended(command, timeout_s)
    seconds = time.monotonic() - began
    row = {**_read(out, name), "seconds": round(seconds, 1), "done": True}
    _write(out, name, {**row, "failed": f"{row.get('stage', 'start')}: {reason}"} if reason else row)
    return f"{name}: {reason or 'done'} in {seconds:.0f} s"


def _ended(command: list[str], timeout_s: float) -> str:
    """Run a command on one thread, and end it with all that it started and wrote; return what went wrong."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, **threads, "TMPDIR": folder},
        )  # fmt: skip
        try:
            said = child.communicate(timeout=timeout_s)[1].strip().splitlines()
        except subprocess.TimeoutExpired:
            return f"no end after {timeout_s} s"
        finally:
            _stop(child)
    return "" if child.returncode == 0 else (said or [f"ended with {child.returncode}"])[-1]


def _stop(child: subprocess.Popen[str]) -> None:
    """Interrupt a child that still runs, so that it ends a build of its own; then make sure."""
    for sign in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            if child.poll() is None:
                os.killpg(child.pid, sign)
            child.communicate(timeout=GRACE_S)


def _read(out: Path, name: str) -> dict[str, Any]:
    path = out / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _write(out: Path, name: str, row: dict[str, Any]) -> None:
    with atomic_file(out / f"{name}.json") as temporary:
        temporary.write_text(json.dumps({"network": name, **row}, indent=1) + "\n", encoding="utf-8")


def _record(name: str, out: Path, sms: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        measure(name, sms, Path(folder), lambda row: _write(out, name, row))


class _Row(dict[str, Any]):
    """What is known of a network so far; written down before each stage, so that a kill loses one stage only."""

    def __init__(self, keep: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self.keep = keep

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; what is wrong with it ends this network."""
        self["stage"] = name
        self.keep(dict(self))
        began = time.monotonic()
        yield
        self.setdefault("stages", {})[name] = round(time.monotonic() - began, 2)
        self.keep(dict(self))


def measure(
    name: str, sms: tuple[str, ...], work: Path, keep: Callable[[dict[str, Any]], None] = lambda row: None
) -> dict[str, Any]:
    """Take one network with random weights through export, passes, precisions, engines and ONNX Runtime.

    Args:
        name: A network.
        sms: Compute capabilities to build engines for.
        work: A folder for the files.
        keep: Called with what is known before and after each stage.

    Raises:
        EdgesmithError: Export, parity or a pass failed. What fails later stands in the row.
    """
    import numpy as np

    from edgesmith.export import parity, to_onnx
    from edgesmith.models import complexity, weights
    from edgesmith.optimize import optimizer
    from edgesmith.optimize.fp16 import convert

    entry, row = catalog.find_network(name), _Row(keep)
    spec = catalog.network_spec(name)
    with row.stage("build"):
        module = catalog.build_network(name, spec.num_classes)
        spec = weights.load_into(module, spec, "random")
        weights.warm_up_batchnorm(module, spec.input_shape)
        costs = complexity.describe_network(name)
        row |= {"params": costs.params, "macs": costs.macs, "top1": entry.figures.top1}
    images = np.random.default_rng(0).standard_normal((IMAGES, *spec.input_shape), dtype=np.float32)
    batches = [images[index : index + 1] for index in range(len(images))]
    raw, fp32, fp16, int8 = (work / f"{stem}.onnx" for stem in ("raw", "fp32", "fp16", "int8"))
    with row.stage("export"):
        to_onnx.export(module, spec, raw)
    with row.stage("parity"):
        row["parity"] = parity.check(module, raw, spec).worst.error
    with row.stage("passes"):
        report = optimizer.optimize(raw, fp32, samples=batches[:2])
        row["nodes"] = [report.before.nodes, report.after.nodes]
    with row.stage("latency"):
        row["ort_p50_ms"] = _latency(fp32, spec.input_name, batches[0])
    for kind, path, make in (
        ("fp16", fp16, lambda: convert.to_fp16(fp32, fp16, batches[:2])),
        ("int8", int8, lambda: _int8(fp32, int8, batches)),
    ):
        with row.stage(kind):
            row[kind] = _engines(path, make, sms, kind)
    return row


def _int8(fp32: Path, target: Path, batches: list[Any]) -> None:
    """Make the file that INT8 engines are built from: Q/DQ by the plainest calibration, the rest in FP16."""
    from edgesmith.optimize import quantize
    from edgesmith.optimize.trt import mixed_precision

    settings = quantize.QuantSettings.quick()
    pairs = target.with_name("pairs.onnx")
    quantize.quantize(fp32, pairs, batches, target="trt", allow_random=True, min_images=len(batches), settings=settings)
    mixed_precision.restore_float_nodes(fp32, pairs, [], target)


def _engines(path: Path, make: Callable[[], Any], sms: tuple[str, ...], kind: str) -> dict[str, str]:
    """Return for each SM "built", or why it was not."""
    from edgesmith.optimize.trt import preflight
    from edgesmith.runtime.engines import build

    found = {}
    for sm in sms:
        try:
            if not path.is_file():
                make()
            preflight.require(preflight.check(path, kind, [sm]), path)
            build.build_engine(path, path.with_name(f"{kind}-{sm}.engine"), sm=sm, precision=kind)
            found[sm] = "built"
        except NotAvailable as error:
            found[sm] = f"not here: {error.what}"
        except EdgesmithError as error:
            found[sm] = f"failed: {error}"
        if found[sm] != "built" and not path.is_file():
            return dict.fromkeys(sms, found[sm])
    return found


def _latency(path: Path, feed: str, x: Any) -> float:
    """Return the median latency in milliseconds on one thread."""
    from edgesmith.runtime.backends import ort

    with ort.open(path, threads=1) as session:
        taken: list[int] = []
        while len(taken) < WARM_UP + RUNS and sum(taken) < LONGEST_NS:
            began = time.perf_counter_ns()
            session.run({feed: x})
            taken.append(time.perf_counter_ns() - began)
    kept = sorted(taken[WARM_UP:] or taken)
    return round(kept[len(kept) // 2] / 1e6, 2)


def markdown(out: Path) -> str:
    """Draw the table from the JSON files of a folder."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*.json")}
    rows = [found[name] for name in catalog.network_names() if name in found]
    lines = [_heading(rows), "", f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for reason in _failures(row):
            reasons.setdefault(reason, []).append(row["network"])
    return "\n".join([*lines, "", *(f"- {', '.join(names)}: {reason}" for reason, names in reasons.items()), ""])


def _heading(rows: list[dict[str, Any]]) -> str:
    here = environment.here()
    versions = ", ".join(f"{name} {version}" for name, version in here.packages.items())
    day = datetime.datetime.now(tz=datetime.timezone.utc).date()
    minutes = sum(row.get("seconds", 0) for row in rows) / 60
    return (
        f"{day}, `make zoo-table`: {len(rows)} networks with random weights, {minutes:.0f} minutes of one thread in "
        f"all, on {here.cpu}, {here.cores} cores; {versions}."
    )


def _cells(row: dict[str, Any]) -> list[str]:
    def shown(key: str, text: str, scale: float = 1.0) -> str:
        return text.format(row[key] / scale) if row.get(key) is not None else ""

    built = [
        f"{sum(said == 'built' for said in row[kind].values())} of {len(row[kind])}" if kind in row else ""
        for kind in ("fp16", "int8")
    ]
    nodes = [str(count) for count in row.get("nodes", ("", ""))]
    error = f"{100 - row['top1']:.1f}" if row.get("top1") else ""
    exported = row.get("stages", {}).get("export")
    return [
        row["network"], shown("params", "{:.2f}", 1e6), shown("macs", "{:.0f}", 1e6), error,
        "" if exported is None else f"{exported:.1f}", *nodes, shown("parity", "{:.0e}"), *built,
        shown("ort_p50_ms", "{:.1f}"), shown("seconds", "{:.0f}"),
    ]  # fmt: skip


def _failures(row: dict[str, Any]) -> list[str]:
    found = [row["failed"]] if "failed" in row else []
    for kind in ("fp16", "int8"):
        whys: dict[str, list[str]] = {}
        for sm, why in row.get(kind, {}).items():
            whys.setdefault(why, []).append(sm)
        found += [f"{kind} for SM {', '.join(sms)}: {why}" for why, sms in whys.items() if why != "built"]
    return found


if __name__ == "__main__":
    main()
