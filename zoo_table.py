"""`make zoo-table`: every network of the zoo through the pipeline with random weights, one row each; resumable.

Each network runs in a child process of its own and leaves one JSON file; a second call does only those that are
missing. The table is drawn from the files: parameters, MACs, published error, export time, nodes before and after our
passes, parity, engines for FP16 and INT8, median latency in ONNX Runtime at batch 1.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from .models import catalog
from .runtime.console import guarded, note
from .runtime.errors import EdgesmithError, NotAvailable
from .runtime.files import atomic_file

BIGGEST = 150_000_000
RUNS, WARM_UP = 15, 3
COLUMNS = (
    "network", "params M", "MACs M", "top-1 error %", "export s", "nodes before", "after", "worst parity error",
    "FP16 engines", "INT8 engines", "ORT p50 ms",
)  # fmt: skip


@click.command()
@click.argument("names", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/zoo"), show_default=True)
@click.option("--sm", "sms", multiple=True, default=("8.6", "8.9", "12.0"), show_default=True, help="Repeatable.")
@click.option("--timeout", "timeout_s", default=600, show_default=True, help="Seconds for one network.")
@click.option("--one", is_flag=True, hidden=True)
def main(names: tuple[str, ...], out: Path, sms: tuple[str, ...], timeout_s: int, one: bool) -> None:
    """Measure NAMES (all up to 150 M parameters when none is given) and write OUT/zoo.md."""
    if one:
        sys.exit(guarded(lambda: _record(names[0], out, sms)))
    sys.exit(guarded(lambda: _all(names or _default(), out, sms, timeout_s)))


def _default() -> tuple[str, ...]:
    return tuple(name for name in catalog.names() if (catalog.find(name).figures.params or 0) <= BIGGEST)


def _all(names: tuple[str, ...], out: Path, sms: tuple[str, ...], timeout_s: int) -> None:
    names = tuple(catalog.find(name).name for name in names)
    for number, name in enumerate(names, start=1):
        if (out / f"{name}.json").is_file():
            continue
        began = time.monotonic()
        failed = _child(name, out, sms, timeout_s)
        note(f"{number}/{len(names)} {name}: {failed or 'done'} in {time.monotonic() - began:.0f} s")
    with atomic_file(out / "zoo.md") as temporary:
        temporary.write_text(markdown(out), encoding="utf-8")
    note(f"table in {out / 'zoo.md'}")


def _child(name: str, out: Path, sms: tuple[str, ...], timeout_s: int) -> str:
    """Measure one network in a process of its own; returns why it failed, or an empty string."""
    wanted = [option for sm in sms for option in ("--sm", sm)]
    command = [sys.executable, "-m", f"{__package__}.zoo_table", name, "--one", "--out", str(out), *wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        reason = f"no end after {timeout_s} s"
    else:
        reason = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]
    if reason:
        _write(out, name, {"failed": reason})
    return reason


def _write(out: Path, name: str, row: dict[str, Any]) -> None:
    with atomic_file(out / f"{name}.json") as temporary:
        temporary.write_text(json.dumps({"network": name, **row}, indent=1) + "\n", encoding="utf-8")


def _record(name: str, out: Path, sms: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _write(out, name, measure(name, sms, Path(folder)))


@contextlib.contextmanager
def _timed(row: dict[str, Any], key: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    row[key] = round(time.monotonic() - began, 2)


def measure(name: str, sms: tuple[str, ...], work: Path) -> dict[str, Any]:
    """Take one network with random weights through export, passes, precisions, engines and ONNX Runtime.

    Raises:
        EdgesmithError: Export, parity or a pass failed. What fails later stands in the row.
    """
    import numpy as np

    from .export import parity, to_onnx
    from .models import weights
    from .optimize import precision, quantize, runner

    entry, row = catalog.find(name), dict[str, Any]()
    spec = catalog.spec(name)
    module = catalog.build(name, spec.num_classes)
    spec = weights.load_into(module, spec, "random")
    images = np.random.default_rng(0).standard_normal((32, *spec.input_shape), dtype=np.float32)
    batches = [images[index : index + 1] for index in range(len(images))]
    with _timed(row, "export_s"):
        raw = to_onnx.export(module, spec, work / "raw.onnx")
    row["parity"] = parity.check(module, raw, spec, images[:3]).worst.error
    with _timed(row, "optimize_s"):
        report = runner.optimize(raw, work / "fp32.onnx", samples=batches[:2])
    row["nodes"] = [report.before.nodes, report.after.nodes]
    row["ort_p50_ms"] = _latency(work / "fp32.onnx", spec.input_name, batches[0])
    row["params"] = sum(parameter.numel() for parameter in module.parameters())
    row["macs"], row["top1"] = entry.figures.macs, entry.figures.top1
    fp32, fp16, int8 = work / "fp32.onnx", work / "fp16.onnx", work / "int8.onnx"
    steps: dict[str, tuple[Path, Callable[[], Any]]] = {
        "fp16": (fp16, lambda: precision.to_fp16(fp32, fp16, batches[:4])),
        "int8": (int8, lambda: quantize.quantize(fp32, int8, batches, target="trt", allow_random=True)),
    }
    for kind, (path, make) in steps.items():
        try:
            make()
            row[kind] = {sm: _engine(path, work / f"{kind}-{sm}.engine", sm, kind) for sm in sms}
        except EdgesmithError as error:
            row[kind] = {"failed": str(error)}
    return row


def _engine(path: Path, out: Path, sm: str, kind: str) -> str:
    from .runtime.engines import build

    try:
        build.build_engine(path, out, sm=sm, precision=kind)
    except NotAvailable as error:
        return f"not here: {error.what}"
    except EdgesmithError as error:
        return f"failed: {error}"
    return "built"


def _latency(path: Path, feed: str, x: Any) -> float:
    """Return the median latency in milliseconds on one thread."""
    from .runtime.backends import ort

    with ort.open(path, threads=1) as session:
        taken = []
        for _ in range(WARM_UP + RUNS):
            began = time.perf_counter_ns()
            session.run({feed: x})
            taken.append(time.perf_counter_ns() - began)
    return round(sorted(taken[WARM_UP:])[RUNS // 2] / 1e6, 2)


def markdown(out: Path) -> str:
    """Draw the table from the JSON files of a folder."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))}
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    for name in (name for name in catalog.names() if name in found):
        lines.append(f"| {' | '.join(_cells(found[name]))} |")
    reasons = [f"- {name}: {reason}" for name, row in found.items() for reason in _failures(row)]
    return "\n".join([*lines, "", *reasons, ""])


def _cells(row: dict[str, Any]) -> list[str]:
    if "failed" in row:
        return [row["network"], "failed", *[""] * (len(COLUMNS) - 2)]
    built = [f"{sum(v == 'built' for v in row[kind].values())} of {len(row[kind])}" for kind in ("fp16", "int8")]
    return [
        row["network"], f"{row['params'] / 1e6:.2f}", f"{row['macs'] / 1e6:.0f}" if row["macs"] else "",
        f"{100 - row['top1']:.1f}" if row["top1"] else "", f"{row['export_s']:.1f}", *map(str, row["nodes"]),
        f"{row['parity']:.1e}", *built, f"{row['ort_p50_ms']:.1f}",
    ]  # fmt: skip


def _failures(row: dict[str, Any]) -> list[str]:
    parts = {"": {"": row.get("failed", "built")}, **{kind: row.get(kind, {}) for kind in ("fp16", "int8")}}
    return [f"{kind} {sm} {why}".strip() for kind, each in parts.items() for sm, why in each.items() if why != "built"]


if __name__ == "__main__":
    main()
