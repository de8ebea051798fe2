"""Compare `edgesmith quantize` with its peers: same model, same images, one run, each quantiser in its own process.

    python tests/support/bench_quant.py [NAME...] [--only WORD] [--no-peers] [--table docs/measurements/quantisation]
    python tests/support/bench_quant.py NET.onnx --data my/images

Names are those of `quant_nets`; none stands for all of NETWORKS. For each quantiser: signal to quantisation noise of
the logits (dB), agreement of the top-1 with FP32 and top-1, on the test and the hard split, computed as the graph is
written (optimisations off) and as this machine's kernels do; seconds of the CPU and peak memory of the quantiser's
process. Then all files of a network run in turns with FP32, in ONNX Runtime and OpenVINO.

Each result is a file below `results/quantisation`; what stands there for the same FP32 file and the same quantiser is
not measured again. NNCF, ModelOpt and Quark get an environment of their own below `build/bench-quant`.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from quant_judge import answers, judge, speeds
from quant_nets import fp32
from quant_table import table

from edgesmith.optimize.quantize.commands import read_spec
from edgesmith.runtime import datasets
from edgesmith.runtime.files import atomic_file

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER, RESULTS = ROOT / "build" / "bench-quant", ROOT / "results" / "quantisation"
NETWORKS = (
    "mobilenetv2", "shufflenetv2", "resnet18", "efficientnet_b0", "mobilenetv3_small",
    "mobilenetv2-stress", "resnet18-stress", "mobilenetv2-224",
)  # fmt: skip
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
    "edgesmith ort-x86 quick": ["--target", "ort-x86", "--quick"],
}
ORT = ("minmax", "default", "percentile", "entropy", "7bit")
OTHERS = ("quark-cle", "modelopt-max", "nncf-default", "nncf-mixed", "quark", "modelopt", "nncf-fast")
# At another size only time and memory are asked for, and only the fastest matter.
TIMED = ("edgesmith ort-x86", "edgesmith ort-x86 quick", "onnxruntime minmax", "onnxruntime default", "quark")
TIMED_IMAGES, ROUNDS = 32, 60


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
    """Run a quantiser; return seconds, CPU seconds, peak MB and, if it wrote nothing, the last line that it said."""
    result.unlink(missing_ok=True)
    started = time.perf_counter()
    # Some tools leave files where they stand.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": result.parent}
    with subprocess.Popen(command, **quiet) as process:
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    why = "" if result.exists() else (said.strip().splitlines() or ["no output"])[-1][:160]
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss * 1024 / 1e6),
        "failed": why,
    }


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


def key(source, label):
    """Return the digest of what a result depends on: the FP32 file, and the quantiser's code or version."""
    digest = hashlib.sha256(source.read_bytes())
    mine = label.startswith("edgesmith")
    code = sorted((ROOT / "optimize" / "quantize").glob("*.py")) if mine else [HERE / "quant_peers.py"]
    for path in code:
        digest.update(path.read_bytes())
    digest.update("".join(PEERS).encode() if label in OTHERS else b"")
    return digest.hexdigest()[:16]


def stored(path, wanted):
    """Return a result that was measured for the same thing (None: for any), or None."""
    found = json.loads(path.read_text()) if path.exists() else None
    return found if found and wanted in (None, found["key"]) else None


def store(path, row):
    """Write a result, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(row, indent=1) + "\n")


class Bench:
    """One network: its FP32 answers are computed when the first result is missing."""

    def __init__(self, name, given):
        self.source, self.given = fp32(name, FOLDER / "nets"), given
        self.name, self.timed = self.source.stem, name.rpartition("-")[2].isdigit()
        self.results, self.files = RESULTS / self.name, FOLDER / "files" / self.name
        for folder in (self.results, self.files):
            folder.mkdir(parents=True, exist_ok=True)
        self.splits = {}

    def _load(self):
        spec = read_spec(self.source)
        for name in ("test", "hard"):
            split = datasets.load(self.given.data, name).head(TIMED_IMAGES if self.timed else self.given.images)
            self.splits[name] = np.concatenate(list(split.batches(spec, 32))), split.labels
        self.references = {name: answers(self.source, images) for name, (images, _) in self.splits.items()}
        images = np.concatenate(list(datasets.load(self.given.data, "calibration").batches(spec, 32)))
        with atomic_file(self.files / "calibration.npy") as temporary, temporary.open("wb") as file:
            np.save(file, images)
        values = {name: (self.references[name], self.splits[name][1]) for name in self.splits}
        top1 = {k: round(100 * float((v.argmax(1) == labels).mean()), 2) for k, (v, labels) in values.items()}
        store(self.results / "fp32.json", {"top1_percent": top1, "images": {k: len(v[1]) for k, v in values.items()}})

    def run(self):
        """Measure what is missing, and return everything."""
        target = self.files / f"running-{os.getpid()}.onnx"
        calibration = self.files / "calibration.npy"
        every = commands(self.source, self.given.data, calibration, target, not self.given.no_peers)
        every = {label: command for label, command in every.items() if not self.timed or label in TIMED}
        rows = {}
        for label, command in every.items():
            path, wanted = self.results / f"{label.replace(' ', '-')}.json", key(self.source, label)
            row = stored(path, None if self.given.stored else wanted)
            if row is None and (self.given.stored or self.given.only not in label):
                continue
            if row is None:
                if not self.splits:
                    self._load()
                row = {"key": wanted, **measured([str(word) for word in command], target)}
                if not row["failed"]:
                    row |= {"bytes": target.stat().st_size, **judge(target, self.splits, self.references)}
                    target.rename(path_of(self.files, label))
                store(path, row)
                print(self.name, label, json.dumps(row), flush=True)  # noqa: T201
            rows[label] = row
        if not rows:
            return None
        found = {**json.loads((self.results / "fp32.json").read_text()), "rows": rows}
        return found | {"speed": self._speed(rows)}

    def _speed(self, rows):
        files = {label: path_of(self.files, label) for label, row in rows.items() if not row["failed"]}
        digest = hashlib.sha256(json.dumps(sorted((label, rows[label]["key"]) for label in files)).encode())
        path, wanted = self.results / "speed.json", digest.hexdigest()[:16]
        found = stored(path, None if self.given.stored else wanted)
        if found is None and self.given.no_speed:
            return {}
        if found is None:
            shape = [1, *read_spec(self.source).input_shape]
            image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            found = {"key": wanted, "rows": speeds(self.source, files, image, ROUNDS)}
            store(path, found)
        return found["rows"]


def path_of(folder, label):
    return folder / f"{label.replace(' ', '-')}.onnx"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", default=NETWORKS)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=10**6, help="at most so many of each split")
    parser.add_argument("--only", default="", help="measure only quantisers with this in their name")
    parser.add_argument("--no-peers", action="store_true", help="ours and onnxruntime's only: nothing is installed")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument(
        "--stored", action="store_true", help="measure nothing: what stands in the results, of any code"
    )
    parser.add_argument("--table", type=Path, help="write TABLE.md and TABLE.json")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {}
    for name in given.sources or NETWORKS:
        bench = Bench(name, given)
        if rows := bench.run():
            found[bench.name] = rows
    text = table(found)
    if given.table:
        store(given.table.with_suffix(".json"), found)
        with atomic_file(given.table.with_suffix(".md")) as temporary:
            temporary.write_text(text)
    print(text)  # noqa: T201


if __name__ == "__main__":
    main()
