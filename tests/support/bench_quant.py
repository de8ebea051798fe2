"""Compare `edgesmith quantize` with its peers: same model, same images, one run, each quantiser in its own process.

    python tests/support/bench_quant.py [NAME...] [--only WORD,WORD] [--no-peers] [--table docs/measurements/q]
    python tests/support/bench_quant.py NET.onnx --data my/images

Names are those of `quant_nets`; none stands for all of NETWORKS. For each quantiser: signal to quantisation noise of
the logits (dB), agreement of the top-1 with FP32 and top-1, on the test and the hard split, computed as the graph is
written (optimisations off) and as this machine's kernels do; seconds of the CPU and peak memory of the quantiser's
process. Then all files of a network run in turns with FP32, in ONNX Runtime and OpenVINO, on images of its own size
and of 224x224.

Each result is a file below `results/quantisation`; what stands there for the same FP32 file, the same quantiser (ours:
the same code), data and judge is not measured again. NNCF, ModelOpt and Quark get an environment of their own below
`build/bench-quant`.
"""

import argparse
import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
from quant_env import PEERS, environment, variables
from quant_judge import answers, judge
from quant_nets import fp32, optimised
from quant_speed import speeds
from quant_table import table

from edgesmith.cli.quantize import read_spec
from edgesmith.runtime import datasets
from edgesmith.runtime.common.files import atomic_file

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER, RESULTS = ROOT / "build" / "bench-quant", ROOT / "results" / "quantisation"
NETWORKS = (
    "mobilenetv2", "shufflenetv2", "mobilenetv3_small", "mobilenetv2-224", "mobilenetv2-stress", "resnet18",
    "resnet18-stress", "efficientnet_b0", "shufflenetv2-export",
)  # fmt: skip
OURS = {
    "edgesmith ort-x86": ["--target", "ort-x86"],
    "edgesmith trt": ["--target", "trt"],
    "edgesmith trt-rtx": ["--target", "trt-rtx"],
    "edgesmith openvino": ["--target", "openvino"],
    "edgesmith ort-x86 quick": ["--target", "ort-x86", "--quick"],
}
ORT = tuple(f"onnxruntime {kind}" for kind in ("minmax", "default", "percentile", "entropy", "7bit"))
OTHERS = ("quark-cle", "modelopt-max", "nncf-default", "nncf-mixed", "quark", "modelopt", "nncf-fast")
# At another size only time and memory are asked for, and only the fastest matter.
TIMED = (
    "edgesmith ort-x86", "edgesmith ort-x86 quick", "onnxruntime minmax", "onnxruntime default", "quark",
    "modelopt-max", "nncf-fast",
)  # fmt: skip
TIMED_IMAGES, ROUNDS, OTHER_SIDE, LIMIT_SECONDS = 32, 60, 224, 1200


def measured(command, result):
    """Run a quantiser; return seconds, CPU seconds, peak MB and, if it wrote nothing, the last line that it said."""
    result.unlink(missing_ok=True)
    started = time.perf_counter()
    # Some tools leave files where they stand.
    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.PIPE,
        "text": True,
        "cwd": result.parent,
        "env": variables(FOLDER),
    }
    with subprocess.Popen(command, **quiet) as process:
        limit = threading.Timer(LIMIT_SECONDS, process.kill)
        limit.start()
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        limit.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    why = (said.strip().splitlines() or [f"ended with {process.returncode} after {seconds:.0f} s"])[-1][:160]
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss * 1024 / 1e6),
        "failed": "" if result.exists() else why,
    }


def key(source, images, label):
    """Return the digest of what a result depends on: FP32 file, images, quantiser, judge and ONNX Runtime."""
    mine = label.startswith("edgesmith")
    code = sorted((ROOT / "optimize" / "quantize").glob("*.py")) if mine else [HERE / "quant_peers.py"]
    digest = hashlib.sha256(f"{images} {onnxruntime.__version__}".encode())
    for path in (source, *code, HERE / "quant_judge.py"):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(PEERS[label.partition("-")[0]].encode() if label in OTHERS else b"")
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
        self.name, kind = self.source.stem, "" if name.endswith(".onnx") else name.partition("-")[2]
        self.exported = kind == "export"
        self.timed, self.plain = kind.isdigit() or self.exported, not kind
        self.results, self.files = RESULTS / self.name, FOLDER / "files" / self.name
        for folder in (self.results, self.files):
            folder.mkdir(parents=True, exist_ok=True)
        self.splits = {}

    def _images(self):
        """Load the images; return their digest."""
        spec, digest = read_spec(self.source), hashlib.sha256()
        for name in ("test", "hard"):
            split = datasets.load(self.given.data, name).head(TIMED_IMAGES if self.timed else self.given.images)
            self.splits[name] = np.concatenate(list(split.batches(spec, 32))), split.labels
        calibration = np.concatenate(list(datasets.load(self.given.data, "calibration").batches(spec, 32)))
        for images, labels in (*self.splits.values(), (calibration, np.zeros(0))):
            digest.update(np.ascontiguousarray(images).tobytes() + labels.tobytes())
        with atomic_file(self.files / "calibration.npy") as temporary, temporary.open("wb") as file:
            np.save(file, calibration)
        return digest.hexdigest()

    @functools.cached_property
    def references(self):
        """What FP32 answers, by split; its top-1 is kept beside the results."""
        found = {name: answers(self.source, images) for name, (images, _) in self.splits.items()}
        top1 = {k: round(100 * float((v.argmax(1) == self.splits[k][1]).mean()), 2) for k, v in found.items()}
        sizes = {name: len(labels) for name, (_, labels) in self.splits.items()}
        store(self.results / "fp32.json", {"top1_percent": top1, "images": sizes})
        return found

    def _command(self, label, target):
        """Return the command line of a quantiser, or why there is none."""
        if label in OURS:
            source = optimised(self.source) if self.exported else self.source
            command = [sys.executable, "-m", "edgesmith", "quantize", source, "-o", target]
            return [*command, "--data", self.given.data, *OURS[label]]
        script = [HERE / "quant_peers.py", self.source, self.files / "calibration.npy", target]
        if label in ORT:
            return [sys.executable, *script, f"ort-{label.split()[1]}"]
        python, missing = environment(FOLDER)
        return missing.get(label.partition("-")[0]) or [python, *script, label]

    def run(self):
        """Measure what is missing, and return everything."""
        rows, images = {}, "" if self.given.stored else self._images()
        for label in (*OURS, *ORT, *(() if self.given.no_peers else OTHERS)):
            if self.timed and label not in TIMED:
                continue
            path, wanted = self.results / f"{label.replace(' ', '-')}.json", key(self.source, images, label)
            row = stored(path, None if self.given.stored else wanted)
            if not self.given.stored and row and not row["failed"] and not path_of(self.files, label).exists():
                row = None
            if row is None and (self.given.stored or not any(word in label for word in self.given.only.split(","))):
                continue
            rows[label] = row or self._measure(label, path, wanted)
        if not rows:
            return None
        found = {**json.loads((self.results / "fp32.json").read_text()), "rows": rows}
        if self.plain:
            found |= {"speed": self._speed(rows, None), f"speed {OTHER_SIDE}": self._speed(rows, OTHER_SIDE)}
        if self.exported:
            found |= {f"speed {OTHER_SIDE}": self._speed(rows, OTHER_SIDE)}
        return found

    def _measure(self, label, path, wanted):
        references = self.references
        target = self.files / f"running-{os.getpid()}.onnx"
        command = self._command(label, target)
        if isinstance(command, str):
            return {"key": wanted, "failed": command}
        row = {"key": wanted, **measured([str(word) for word in command], target)}
        if not row["failed"]:
            row |= {"bytes": target.stat().st_size, **judge(target, self.splits, references)}
            target.rename(path_of(self.files, label))
        store(path, row)
        print(self.name, label, json.dumps(row), flush=True)  # noqa: T201
        return row

    def _speed(self, rows, side):
        """Return the speeds of all files on images of the network's own size, or of another."""
        files = {label: path_of(self.files, label) for label, row in rows.items() if not row["failed"]}
        parts = [sorted((label, rows[label]["key"]) for label in files), (HERE / "quant_speed.py").read_text()]
        path = self.results / f"speed{f'-{side}' if side else ''}.json"
        wanted = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        found = stored(path, None if self.given.stored else wanted)
        if found is None and (self.given.no_speed or self.given.stored):
            return {}
        if found is None:
            found = {
                "key": wanted,
                "rows": speeds(self.source, files, side or self._side(), ROUNDS // 3 if side else ROUNDS),
            }
            store(path, found)
        return found["rows"]

    def _side(self):
        return read_spec(self.source).input_shape[-1]


def path_of(folder, label):
    return folder / f"{label.replace(' ', '-')}.onnx"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", default=NETWORKS)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=10**6, help="at most so many of each split")
    parser.add_argument("--only", default="", help="measure only quantisers with one of these words in their name")
    parser.add_argument("--no-peers", action="store_true", help="ours and onnxruntime's only: nothing is installed")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument(
        "--stored", action="store_true", help="quantise nothing: what stands in the results, of any code"
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
