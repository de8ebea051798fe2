"""Judge what became of one network, beside what peers make of the same file: FOLDER CALIBRATION HELD-OUT.

FOLDER holds `raw.onnx` and `bundle`. Writes `judged.json`: for each file the SQNR of the worst output on held-out
images against the raw file, and its speed as a multiple of the raw file's in ONNX Runtime, one thread, in turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter

from edgesmith.optimize.calibration.ort_runs import session
from edgesmith.optimize.quantize.report import judge
from edgesmith.runtime.bundle.bundle import read_bundle
from edgesmith.runtime.datasets import Dataset, image_folder

# Recipes of onnxruntime's quantiser: what it answers to ort-x86, and (symmetric) to what TensorRT takes.
RECIPES = ("minmax", "percentile", "symmetric")
OURS = ("fp32", "fp16", "int8-ort-x86", "int8-trt")  # ends of the artefacts' names
CALIBRATION, PEER_SECONDS, OPSET = 64, 150, 17
WARM, ROUNDS, TIMED_S = 2, 25, 2.0
EXACT_DB = 200.0  # equal to the last bit


def images(folder: Path) -> Dataset:
    """Return all images of a folder, unsplit."""
    files = sorted(folder.glob("*.png"))
    return Dataset(folder.name, "test", image_folder.Files(tuple(files)), np.zeros(len(files), np.int64), ())


def peer(tool: list[str], target: Path) -> tuple[float, str]:
    """Run a peer in a process; return its seconds, and why there is no file, or an empty string."""
    began = time.monotonic()
    try:
        done = subprocess.run(tool, capture_output=True, text=True, timeout=PEER_SECONDS)
    except subprocess.TimeoutExpired:
        return PEER_SECONDS, f"no end after {PEER_SECONDS} s"
    why = (done.stderr.strip().splitlines() or ["no file"])[-1][:160]
    return time.monotonic() - began, "" if target.exists() and not done.returncode else why


def made_by_peers(folder: Path, batches: list[Any]) -> dict[str, dict[str, Any]]:
    """Let OnnxSlim and onnxruntime's quantiser make their files of raw.onnx; return a row for each."""
    raw, calibration = folder / "raw-17.onnx", folder / "calibration.npy"
    model = onnx.load(folder / "raw.onnx")
    if model.opset_import[0].version < OPSET:  # onnxruntime's quantiser has no weights by channel before 13
        model = onnx.version_converter.convert_version(model, OPSET)
    onnx.save(model, raw)
    np.save(calibration, np.concatenate(batches))
    slim = "import sys, onnxslim; onnxslim.slim(sys.argv[1], sys.argv[2])"
    quantiser = Path(__file__).resolve().parents[1] / "support" / "quant_peers.py"
    tools = {"onnxslim": [sys.executable, "-c", slim, str(raw), str(folder / "onnxslim.onnx")]}
    for recipe in RECIPES:
        target = folder / f"ort-{recipe}.onnx"
        tools[target.stem] = [sys.executable, str(quantiser), str(raw), str(calibration), str(target), target.stem]
    rows = {}
    for name, tool in tools.items():
        seconds, why = peer(tool, folder / f"{name}.onnx")
        rows[name] = {"seconds": round(seconds, 1), **({"why": why} if why else {})}
    calibration.unlink()
    return rows


def worst_db(raw: onnx.ModelProto, other: Path, held_out: list[Any]) -> float:
    """Return the SQNR of the worst part of an output, in dB."""
    return min(EXACT_DB, *judge(raw, onnx.load(other), held_out).sqnr_db.values())


def speeds(files: dict[str, Path], feed: Any) -> dict[str, float]:
    """Return for each file how many times as fast as "raw" it is: the median of rounds in turns, processor time."""
    sessions = {name: session(onnx.load(path), optimise=True, threads=1) for name, path in files.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    began = time.monotonic()
    while len(times["raw"]) < 3 + WARM or (
        len(times["raw"]) < ROUNDS + WARM and time.monotonic() - began < TIMED_S * len(files)
    ):
        for name, opened in sessions.items():
            start = time.process_time()
            opened.run(None, {opened.get_inputs()[0].name: feed})
            times[name].append(time.process_time() - start)
    raw = np.array(times["raw"][WARM:])
    return {name: round(float(np.median(raw / np.array(taken[WARM:]))), 3) for name, taken in times.items()}


def main() -> None:
    """Judge one network."""
    folder, calibration, held = Path(sys.argv[1]).resolve(), Path(sys.argv[2]), Path(sys.argv[3])
    raw = onnx.load(folder / "raw.onnx")
    bundle = read_bundle(folder / "bundle")
    held_out = list(images(held).batches(bundle.spec, 1))
    start = len(bundle.spec.name) + 1
    files = {one.name[start:]: bundle.folder / one.path for one in bundle.artefacts if one.name[start:] in OURS}
    rows: dict[str, dict[str, Any]] = {name: {} for name in files}
    rows |= made_by_peers(folder, list(images(calibration).head(CALIBRATION).batches(bundle.spec, 1)))
    files |= {name: folder / f"{name}.onnx" for name, row in rows.items() if name not in files and "why" not in row}
    for name in list(files):
        try:
            rows[name]["sqnr_db"] = round(worst_db(raw, files[name], held_out), 2)
            rows[name]["nodes"] = len(onnx.load(files[name], load_external_data=False).graph.node)
        except Exception as error:  # a peer's file may be anything
            rows[name]["why"] = f"it does not run: {' '.join(str(error).split())[:160]}"
            del files[name]
    timed = {name: path for name, path in files.items() if name not in ("fp16", "int8-trt", "ort-symmetric")}
    for name, ratio in speeds({"raw": folder / "raw.onnx", **timed}, held_out[0]).items():
        rows.setdefault(name, {})["speed"] = ratio
    rows["raw"]["nodes"] = len(raw.graph.node)
    (folder / "judged.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
