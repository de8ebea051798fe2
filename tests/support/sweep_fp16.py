"""Cast every network of the zoo to FP16 and measure what that costs; resumable.

    python tests/support/sweep_fp16.py [NAME...] [--largest 30] [--table docs/measurements/fp16.md]

Random weights, batch norm with the statistics of noise, export, passes, `to_fp16` on noise of two seeds: one for the
ranges, one for the error. A process and a JSON file below `results/fp16` for each network; what stands there is not
measured again. Relative error of the logits, max|half - float| / max|float|: of all that can be in FP16, and with the
first layers in FP32 as the limit of 2e-3 asks. Beside it stands what rounding the input alone to FP16 changes: so much
does a network make of the least that FP16 does.
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

from edgesmith.runtime.common.files import atomic_file

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "fp16"
LIMIT, IMAGES, CPU_SECONDS, HANGING = 2e-3, 4, 300, 7200
# Batch norm takes on all but a tenth of noise's statistics each time. After once the activations of deep networks
# vanish on the way, and the logits no longer depend on the input.
SETTLED = 4


def measure(name):
    """Return what FP16 keeps of one network."""
    from edgesmith.export import to_onnx
    from edgesmith.models import catalog, weights
    from edgesmith.optimize import optimizer
    from edgesmith.optimize.fp16 import convert
    from edgesmith.optimize.fp16.convert import relative_error
    from edgesmith.optimize.graph.proto_graph import read_model

    started, spec = time.perf_counter(), catalog.network_spec(name)
    module = catalog.build_network(name, spec.num_classes)
    spec = weights.load_into(module, spec, "random")
    for _ in range(SETTLED):
        weights.warm_up_batchnorm(module, spec.input_shape)
    draw = np.random.default_rng(0)
    seen, unseen = ([draw.standard_normal((1, *spec.input_shape), dtype="f4") for _ in range(IMAGES)] for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        raw, fp32, fp16 = (Path(folder) / f"{stem}.onnx" for stem in ("raw", "fp32", "fp16"))
        to_onnx.export(module, spec, raw)
        optimizer.optimize(raw, fp32, samples=seen[:1])
        model = read_model(fp32)
        whole = convert.to_fp16(fp32, fp16, seen)
        error, alone = max(relative_error(model, read_model(fp16), unseen).values()), input_alone(model, unseen)
        report, limited = whole, error
        if max(whole.relative_error.values()) >= LIMIT / 2:
            report = convert.to_fp16(fp32, fp16, seen, limit=LIMIT)
            limited = max(relative_error(model, read_model(fp16), unseen).values())
    return {
        "params": sum(parameter.numel() for parameter in module.parameters()),
        "error": error,
        "limited": limited,
        "input_alone": alone,
        "nodes": report.nodes,
        "half": report.half,
        "kept": report.kept,
        "casts": report.casts,
        "flushed": report.flushed,
        "seconds": round(time.perf_counter() - started, 1),
    }


def input_alone(model, images):
    """Return the relative error of the logits when nothing but the input is rounded to FP16."""
    from edgesmith.optimize.calibration.ort_runs import stream

    names = [item.name for item in model.graph.output]
    rounded = [image.astype("f2").astype("f4") for image in images]
    exact, other = (list(stream(model, names, batches, optimise=True)) for batches in (images, rounded))
    found = []
    for name in names:
        one, two = (np.concatenate([answer[name] for answer in answers]) for answers in (exact, other))
        found.append(float(np.abs(one - two).max()) / max(float(np.abs(one).max()), 1e-30))
    return max(found)


def stored(path):
    """Return a result that is there and of today's kind, or None."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return found if "failed" in found or "limited" in found else None


def one(name):
    """Measure a network in a process of its own, and keep the result; return it."""
    path = RESULTS / f"{name}.json"
    if found := stored(path):
        return found
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
    over, still = (sum(not row[key] < LIMIT for row in good) for key in ("error", "limited"))
    lines = [
        "# FP16 over the zoo",
        "",
        f"`make sweep-fp16`, {datetime.date.today()}: {len(rows)} networks, random weights, settled; {IMAGES} images",
        "that were not looked at before, computed by onnxruntime on the CPU in float, every half value rounded. NaN or",
        f"Inf: none in {len(good)}, {len(rows) - len(good)} failed. Relative error of the logits of {LIMIT:g} or more:",
        f"{over} all in FP16, {still} with the first layers in FP32 («limited»). «Input alone»: when nothing but the",
        "input is rounded to FP16.",
        f"Not reached: {', '.join(left) or 'none'}.",
        "",
        "| network | params M | input alone | all in FP16 | limited | nodes in FP16 then | subnormal weights, % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in sorted(rows.items(), key=lambda item: -item[1].get("error", np.inf)):
        if "failed" in row:
            lines.append(f"| {name} | | failed: {row['failed'].replace('|', '/')} | | | | |")
            continue
        lines.append(
            f"| {name} | {row['params'] / 1e6:.2f} | {row['input_alone']:.1e} | {row['error']:.1e} "
            f"| {row['limited']:.1e} | {row['half']} of {row['nodes']} | {100 * row['flushed']:.2f} |"
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
        if time.monotonic() > ends and not stored(RESULTS / f"{name}.json"):
            left.append(name)
            continue
        rows[name] = one(name)
        print(name, {key: value for key, value in rows[name].items() if key != "kept"}, flush=True)  # noqa: T201
    text = table(rows, left)
    if given.table:
        with atomic_file(given.table) as temporary:
            temporary.write_text(text)
    print(text)  # noqa: T201


def _params(entry):
    """Return how many parameters a network has; where the catalogue does not say, it is built without memory."""
    import torch

    from edgesmith.models import catalog

    if entry.figures.params is not None:
        return entry.figures.params
    with torch.device("meta"):
        module = catalog.build_network(entry.name, catalog.network_spec(entry.name).num_classes)
    return sum(parameter.numel() for parameter in module.parameters())


def _smallest_first(largest):
    """Return the networks up to so many million parameters, those with few operations first."""
    from edgesmith.models import catalog

    kept = [entry for entry in map(catalog.find_network, catalog.network_names()) if _params(entry) <= largest * 1e6]
    return [entry.name for entry in sorted(kept, key=lambda entry: entry.figures.macs or np.inf)]


if __name__ == "__main__":
    main()
