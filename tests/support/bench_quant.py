"""Compare `edgesmith quantize` with its peers: same model, same images, one run, each quantiser in its own process.

    python tests/support/bench_quant.py mobilenetv2 shufflenetv2 [--images N] [--json FILE] [--no-peers]
    python tests/support/bench_quant.py NET.onnx --data my/images

A name stands for the FP32 file of `bundles/NAME`. For each quantiser: signal to quantisation noise of the logits (dB),
agreement of the top-1 with FP32 and top-1, on the test and the hard split, computed as the graph is written
(optimisations off) and as this machine's kernels do; time against FP32 in ONNX Runtime and, where it is installed, in
OpenVINO (one thread, in turns); size, seconds and peak memory of the quantiser's process. NNCF, ModelOpt and Quark are
installed into an environment of their own below `build/bench-quant`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx

from edgesmith.optimize.quantize.commands import read_spec
from edgesmith.optimize.quantize.observe import session, sqnr_db
from edgesmith.runtime import datasets

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "build" / "bench-quant"
# Installed without their requirements; what they import of those stands in NEEDED, and torch and ONNX come from ours.
PEERS = ("nncf==3.4.0", "nvidia-modelopt==0.47.0", "amd-quark==0.13")
NEEDED = (
    "tqdm", "cppimport", "lief", "pulp", "omegaconf", "pydantic", "regex", "nvidia-ml-py", "natsort", "jsonschema",
    "openvino-telemetry", "psutil", "safetensors", "tabulate", "networkx<3.5", "scipy", "pydot", "jstyleson", "ninja",
    "pandas", "onnxslim", "zstandard", "joblib",
)  # fmt: skip
OURS = {
    "edgesmith ort-x86": ["--target", "ort-x86"],
    "edgesmith trt": ["--target", "trt"],
    "edgesmith openvino": ["--target", "openvino"],
}
ORT = ("default", "minmax", "percentile", "entropy", "7bit")
OTHERS = ("nncf-default", "nncf-mixed", "nncf-fast", "modelopt", "modelopt-max", "quark", "quark-cle")


def environment():
    """Return the Python of an environment with the peers, made on the first call."""
    python, ready = FOLDER / "peers" / "bin" / "python", FOLDER / "peers" / ".ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", FOLDER / "peers"], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for name in PEERS:
            subprocess.run([*install, "--no-deps", name], check=False)
        subprocess.run([*install, "--no-deps", *NEEDED], check=True)
        (site,) = (FOLDER / "peers" / "lib").glob("python*/site-packages")
        ours = Path(np.__file__).resolve().parents[1]
        (site / "zz-ours.pth").write_text(f"{ours}\n")
        ready.touch()
    return python


def measured(command, result):
    """Run a quantiser; return seconds, peak bytes and, if it wrote nothing, the last line that it said."""
    result.unlink(missing_ok=True)
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    why = "" if result.exists() else (said.strip().splitlines() or ["no output"])[-1][:160]
    return time.perf_counter() - started, usage.ru_maxrss * 1024, why


def answers(path, images, optimise=False):
    opened = session(onnx.load(path), optimise=optimise, threads=1)
    (given,) = opened.get_inputs()
    step = given.shape[0] if isinstance(given.shape[0], int) else 32
    parts = range(0, len(images), step)
    return np.concatenate([opened.run(None, {given.name: images[at : at + step]})[0] for at in parts])


def judge(path, splits, references):
    """Return what a quantised file keeps, on each split, as written and as computed here."""
    row = {}
    for name, (images, labels) in splits.items():
        for kind, optimise in (("written", False), ("here", True)):
            value, float_value = answers(path, images, optimise), references[name]
            row[f"{name} {kind}"] = {
                "sqnr_db": round(sqnr_db(float_value, value), 2),
                "agreement_percent": round(100 * float((value.argmax(1) == float_value.argmax(1)).mean()), 2),
                "top1_percent": round(100 * float((value.argmax(1) == labels).mean()), 2),
            }
    return row


def speeds(source, path, image, runs=60):
    """Return the time of FP32 in ONNX Runtime over that of the quantised file, in each runtime; minima of turns."""
    calls = {}
    for name, file in {"fp32": source, "ort": path}.items():
        opened = session(onnx.load(file), optimise=True, threads=1)
        calls[name] = lambda opened=opened: opened.run(None, {opened.get_inputs()[0].name: image})
    try:
        import openvino

        core = openvino.Core()
        compiled = core.compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"})
        request = compiled.create_infer_request()
        calls["openvino"] = lambda: request.infer({0: image})
    except (ImportError, RuntimeError) as error:
        warnings.warn(f"OpenVINO: {error}", stacklevel=1)
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(runs):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - started)
    return {f"{name} speed-up": round(least["fp32"] / value, 2) for name, value in least.items() if name != "fp32"}


def commands(source, data, calibration, target, peers):
    """Return the command line of every quantiser."""
    ours = [sys.executable, "-m", "edgesmith", "quantize", source, "-o", target, "--data", data]
    found = {name: [*ours, *options] for name, options in OURS.items()}
    script = [HERE / "quant_peers.py", source, calibration, target]
    found |= {f"onnxruntime {kind}": [sys.executable, *script, f"ort-{kind}"] for kind in ORT}
    if peers:
        python = environment()
        found |= {name: [python, *script, name] for name in OTHERS}
    return found


def compare(source, data, every, peers, timed=True):
    """Quantise one model with everything; return a row for each."""
    spec = read_spec(source)
    splits = {}
    for name in ("test", "hard"):
        split = datasets.load(data, name).head(every)
        splits[name] = np.concatenate(list(split.batches(spec, 32))), split.labels
    references = {name: answers(source, images) for name, (images, _) in splits.items()}
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        calibration, target = Path(folder) / "calibration.npy", Path(folder) / "q.onnx"
        np.save(calibration, np.concatenate(list(datasets.load(data, "calibration").batches(spec, 32))))
        for label, command in commands(source, data, calibration, target, peers).items():
            seconds, peak, why = measured([str(word) for word in command], target)
            rows[label] = {"seconds": round(seconds, 1), "peak_mb": round(peak / 1e6), "failed": why}
            if not why:
                rows[label] |= {"bytes": target.stat().st_size, **judge(target, splits, references)}
                rows[label] |= speeds(source, target, splits["test"][0][:1]) if timed else {}
            print(label, json.dumps(rows[label]), flush=True)  # noqa: T201
    top1 = {k: round(100 * float((references[k].argmax(1) == splits[k][1]).mean()), 2) for k in splits}
    return {"fp32 top1_percent": top1, "images": {k: len(v[1]) for k, v in splits.items()}, "rows": rows}


def markdown(name, found):
    """Return a table of one model's results."""
    top1 = found["fp32 top1_percent"]
    lines = [
        f"{name}: FP32 top-1 {top1['test']} / {top1['hard']} %, {found['images']['test']} test and "
        f"{found['images']['hard']} hard images",
        "",
        "| quantiser | SQNR as written, test / hard, dB | SQNR here, test / hard, dB | agreement, hard "
        "| top-1, test / hard | ORT, OpenVINO against ORT FP32 | s | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label, row in found["rows"].items():
        if row["failed"]:
            lines.append(f"| {label} | failed: {row['failed']} | | | | | | |")
            continue
        pair = lambda kind, key, row=row: " / ".join(f"{row[f'{k} {kind}'][key]}" for k in ("test", "hard"))  # noqa: E731
        fast = ", ".join(str(row[key]) for key in ("ort speed-up", "openvino speed-up") if key in row)
        lines.append(
            f"| {label} | {pair('written', 'sqnr_db')} | {pair('here', 'sqnr_db')} "
            f"| {row['hard written']['agreement_percent']} | {pair('written', 'top1_percent')} | {fast} "
            f"| {row['seconds']} | {row['peak_mb']} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", default=["mobilenetv2", "shufflenetv2"])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=10**6, help="at most so many of each split")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-peers", action="store_true", help="ours and onnxruntime's only: nothing is installed")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {}
    for name in given.sources:
        file = Path(name) if name.endswith(".onnx") else ROOT / "bundles" / name / "onnx" / f"{name}-fp32.onnx"
        if not file.exists():
            sys.exit(f"there is no {file}; do: make export MODEL={name}")
        found[file.stem.removesuffix("-fp32")] = compare(file, given.data, given.images, not given.no_peers)
        if given.json:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(found, indent=1) + "\n")
    print("\n\n".join(markdown(name, rows) for name, rows in found.items()))  # noqa: T201


if __name__ == "__main__":
    main()
