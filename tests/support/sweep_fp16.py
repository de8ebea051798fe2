"""Cast every network of the zoo to FP16 and measure what that costs; resumable.

    python tests/support/sweep_fp16.py [NAME...] [--largest 30] [--table docs/measurements/fp16.md]

Random weights, batch norm with the statistics of noise, export, passes, `to_fp16` on noise of two seeds: one for the
ranges, one for the error. A process and a JSON file below `results/fp16` for each network; what stands there is not
measured again. Limit of the relative error of the logits, max|half - float| / max|float|: 2e-3.
"""

import argparse
import datetime
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgesmith.runtime.files import atomic_file

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "fp16"
LIMIT, IMAGES, CPU_SECONDS, HANGING = 2e-3, 4, 300, 7200


def measure(name):
    """Return what FP16 keeps of one network."""
    from edgesmith.export import to_onnx
    from edgesmith.models import catalog, weights
    from edgesmith.optimize import precision, runner
    from edgesmith.optimize.precision import relative_error
    from edgesmith.optimize.quantize.net import read_model

    started, spec = time.perf_counter(), catalog.spec(name)
    module = catalog.build(name, spec.num_classes)
    spec = weights.load_into(module, spec, "random")
    weights.settle(module, spec.input_shape)
    draw = np.random.default_rng(0)
    seen, unseen = ([draw.standard_normal((1, *spec.input_shape), dtype="f4") for _ in range(IMAGES)] for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        raw, fp32, fp16 = (Path(folder) / f"{stem}.onnx" for stem in ("raw", "fp32", "fp16"))
        to_onnx.export(module, spec, raw)
        runner.optimize(raw, fp32, samples=seen[:1])
        report = precision.to_fp16(fp32, fp16, seen)
        error = relative_error(read_model(fp32), read_model(fp16), unseen)
    return {
        "params": sum(parameter.numel() for parameter in module.parameters()),
        "error": max(error.values()),
        "nodes": report.nodes,
        "half": report.half,
        "kept": report.kept,
        "casts": report.casts,
        "flushed": report.flushed,
        "seconds": round(time.perf_counter() - started, 1),
    }


def one(name):
    """Measure a network in a process of its own, and keep the result; return it."""
    path = RESULTS / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text())
    command = [sys.executable, __file__, "--one", name, "--out", path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANGING)
    except subprocess.TimeoutExpired:
        return keep(path, {"failed": f"longer than {HANGING} s"})
    if done.returncode == -signal.SIGXCPU:
        return keep(path, {"failed": f"longer than {CPU_SECONDS} s of the CPU"})
    if done.returncode < 0:  # ended from outside: not its fault, and not kept
        return {"failed": f"killed by signal {-done.returncode}"}
    if done.returncode:
        return keep(path, {"failed": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][:200]})
    return json.loads(path.read_text())


def keep(path, row):
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(row, indent=1) + "\n")
    return row


def table(rows, left):
    """Return all results as Markdown, the largest error first."""
    good = [row for row in rows.values() if "failed" not in row]
    over = [row for row in good if not row["error"] < LIMIT]
    lines = [
        "# FP16 over the zoo",
        "",
        f"`tests/support/sweep_fp16.py`, {datetime.date.today()}: {len(rows)} networks, random weights, settled,",
        f"{IMAGES} images that were not looked at before, computed by onnxruntime on the CPU. NaN or Inf: none in",
        f"{len(good)}, {len(rows) - len(good)} failed. Relative error of the logits of {LIMIT:g} or more: {len(over)}.",
        f"Not reached: {', '.join(left) or 'none'}.",
        "",
        "| network | params M | relative error | nodes in FP16 | stayed FP32 | subnormal weights, % |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in sorted(rows.items(), key=lambda item: -item[1].get("error", np.inf)):
        if "failed" in row:
            lines.append(f"| {name} | | {row['failed'].replace('|', '/')} | | | |")
            continue
        lines.append(
            f"| {name} | {row['params'] / 1e6:.2f} | {row['error']:.1e} | {row['half']} of {row['nodes']} "
            f"| {len(row['kept'])} | {100 * row['flushed']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--largest", type=float, default=30, help="millions of parameters")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no network after so long")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))  # whatever else the machine does
        keep(given.out, measure(given.names[0]))
        return
    names, ends = given.names or _smallest_first(given.largest), time.monotonic() + given.seconds
    rows, left = {}, []
    for name in names:
        if time.monotonic() > ends and not (RESULTS / f"{name}.json").exists():
            left.append(name)
            continue
        rows[name] = one(name)
        print(name, {key: value for key, value in rows[name].items() if key != "kept"}, flush=True)  # noqa: T201
    text = table(rows, left)
    if given.table:
        with atomic_file(given.table) as temporary:
            temporary.write_text(text)
    print(text)  # noqa: T201


def _smallest_first(largest):
    """Return the networks up to so many million parameters, those with few operations first."""
    from edgesmith.models import catalog

    kept = [entry for entry in map(catalog.find, catalog.names()) if (entry.figures.params or 0) <= largest * 1e6]
    return [entry.name for entry in sorted(kept, key=lambda entry: entry.figures.macs or np.inf)]


if __name__ == "__main__":
    main()
