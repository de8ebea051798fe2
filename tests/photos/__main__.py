"""Measure what is missing and write the table: each network and tool is one JSON file, so that a second call goes on.

    python -m photos [--only mobilenetv2] [--tools edgesmith] [--no-speed] [--table docs/measurements/photos.md]

Each quantiser runs in a process of its own on the same FP32 file and the same 128 calibration crops; judged on 150
crops of other pictures, as the graph is written. NNCF, ModelOpt and Quark get the environment of `make bench-quant`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from bench_quant import FOLDER as PEERS_FOLDER
from bench_quant import measured, store, stored
from quant_env import PEERS, environment
from quant_speed import speeds

from edgesmith.optimize.quantize.report import Quality, judge
from edgesmith.runtime.common.files import atomic_file, sha256
from edgesmith.runtime.common.progress import note
from photos.networks import NETWORKS, batches, fp32
from photos.table import markdown, with_readme

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
CALIBRATION, HELD_OUT, ROUNDS = 128, 150, 30
OURS = {
    "edgesmith ort-x86": ["--target", "ort-x86"],
    "edgesmith ort-x86 quick": ["--target", "ort-x86", "--quick"],
    "edgesmith trt": ["--target", "trt"],
    "edgesmith trt quick": ["--target", "trt", "--quick"],
}
ORT = tuple(f"onnxruntime {kind}" for kind in (
    "minmax", "percentile", "entropy", "symmetric", "symmetric-percentile", "symmetric-entropy",
))  # fmt: skip
OTHERS = ("nncf-default", "nncf-mixed", "nncf-fast", "modelopt", "modelopt-max", "quark", "quark-cle")


class Cells:
    """The cells of one network: a row for each quantiser, and the speeds of all files in one run."""

    def __init__(self, name: str, folder: Path, corpus: Path) -> None:
        self.name, self.folder = name, folder
        self.rows, self.files = (folder / kind / name.replace(" ", "-") for kind in ("rows", "files"))
        for place in (self.rows, self.files):
            place.mkdir(parents=True, exist_ok=True)
        self.source, self.data = fp32(name, corpus, folder)
        images = batches(self.source, self.data, "calibration", CALIBRATION)
        self.held_out = batches(self.source, self.data, "test", HELD_OUT)
        self.calibration = self.files / "calibration.npy"
        np.save(self.calibration, np.concatenate(images))
        self.images = hashlib.sha256(b"".join(one.tobytes() for one in (*images, *self.held_out))).hexdigest()

    def key(self, label: str) -> str:
        """Return the digest of what a row depends on: FP32 file, images, the quantiser and ONNX Runtime."""
        code = sorted((ROOT / "optimize").rglob("*.py")) if label in OURS else [HERE.parent / "support/quant_peers.py"]
        version = PEERS.get(label.partition("-")[0], "") if label in OTHERS else ""
        parts = [self.images, onnxruntime.__version__, version, *map(sha256, (self.source, *code))]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    def file(self, label: str) -> Path:
        """Return where a quantiser's file is kept."""
        return self.files / f"{label.replace(' ', '-')}.onnx"

    def command(self, label: str) -> list[str] | str:
        """Return the command line of a quantiser, or why there is none."""
        target = str(self.file(label))
        if label in OURS:
            return [sys.executable, "-m", "edgesmith", "quantize", str(self.source), "-o", target, "--overwrite",
                    "--data", self.data, "--images", str(CALIBRATION), *OURS[label]]  # fmt: skip
        script = [str(HERE.parent / "support/quant_peers.py"), str(self.source), str(self.calibration), target]
        if label in ORT:
            return [sys.executable, *script, f"ort-{label.split()[1]}"]
        python, missing = environment(PEERS_FOLDER)
        return missing.get(label.partition("-")[0]) or [str(python), *script, label]

    def classes_output(self) -> str:
        """Return the name of the output (N, classes), or an empty string."""
        wanted = NETWORKS[self.name].classes
        dims = {one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim]
                for one in onnx.load(self.source).graph.output}  # fmt: skip
        return next((name for name, shape in dims.items() if len(shape) == 2 and shape[-1] == wanted), "")

    def measure(self, label: str) -> None:
        """Quantise with one tool and judge the file, unless its row is there."""
        path, wanted = self.rows / f"{label.replace(' ', '-')}.json", self.key(label)
        if stored(path, wanted):
            return
        command = self.command(label)
        if isinstance(command, str):  # not installed: tried again on the next call
            path.unlink(missing_ok=True)
            note(f"{self.name} {label}: {command}")
            return
        row = {"key": wanted, "label": label, **measured(command, self.file(label))}
        if not row["failed"]:
            quality = judge(onnx.load(self.source), onnx.load(self.file(label)), self.held_out)
            row |= {"bytes": self.file(label).stat().st_size, **judged(quality, self.classes_output())}
        store(path, row)
        note(f"{self.name} {label}: {row['failed'] or str(row['sqnr_db']) + ' dB'}, {row['cpu_seconds']} s")

    def read(self) -> list[dict[str, Any]]:
        """Return the rows that are there."""
        every = [stored(self.rows / f"{label.replace(' ', '-')}.json", None) for label in (*OURS, *ORT, *OTHERS)]
        return [row for row in every if row]

    def speed(self, may_run: bool) -> dict[str, Any]:
        """Return how many times as fast as FP32 each file is, in one run of all of them."""
        rows = [row for row in self.read() if not row["failed"] and self.file(row["label"]).exists()]
        path, wanted = self.rows / "speed.json", " ".join(sorted(row["key"] for row in rows))
        taken = stored(path, wanted) or (None if may_run else stored(path, None))
        if taken is None and may_run and rows:
            files = {row["label"]: self.file(row["label"]) for row in rows}
            taken = {"key": wanted, "rows": speeds(self.source, files, self.held_out[0].shape, ROUNDS)}
            store(path, taken)
        return taken["rows"] if taken else {}


def judged(quality: Quality, output: str) -> dict[str, Any]:
    """Return what a row keeps of a quality: SQNR of the worst output, and the likeness of one (N, classes)."""
    likeness = quality.likeness.get(output)
    return {"sqnr_db": round(min(quality.sqnr_db.values()), 2), "classes": likeness and likeness.to_dict()}


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / "build" / "photos", help="Where all is kept.")
@click.option("--corpus", type=click.Path(path_type=Path), default=ROOT / "build" / "corpus", help="As `make corpus`.")
@click.option("--only", multiple=True, help="Pattern of networks; repeatable.  [default: all]")
@click.option("--tools", multiple=True, help="A word of quantisers' names; repeatable.  [default: all]")
@click.option("--no-speed", is_flag=True, help="Measure no latency.")
@click.option(
    "--table", type=click.Path(path_type=Path), help="Write the table, and the one of README.md, from all rows."
)
def main(
    folder: Path, corpus: Path, only: tuple[str, ...], tools: tuple[str, ...], no_speed: bool, table: Path | None
) -> None:
    """Measure what is missing."""
    warnings.simplefilter("ignore")
    folder, corpus = folder.resolve(), corpus.resolve()
    for name in NETWORKS:
        if not any(fnmatch.fnmatch(name, pattern) for pattern in only or ("*",)):
            continue
        cells = Cells(name, folder, corpus)
        for label in (*OURS, *ORT, *OTHERS):
            if any(word in label for word in tools or ("",)):
                cells.measure(label)
        rows = {row["label"]: row for row in cells.read()}
        store(folder / f"{name.replace(' ', '-')}.json",
              {"name": name, "rows": rows, "speed": cells.speed(not no_speed)})  # fmt: skip
    every = [path for one in NETWORKS if (path := folder / f"{one.replace(' ', '-')}.json").exists()]
    results = [json.loads(path.read_text()) for path in every]
    if table:
        for place, text in ((table, markdown(results)), (ROOT / "README.md", with_readme(ROOT / "README.md", results))):
            with atomic_file(place) as temporary:
                temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
