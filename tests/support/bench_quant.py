"""Compare the INT8 files of `edgesmith quantize` with those of onnxruntime's own quantiser, same model, same images.

    python tests/support/bench_quant.py FLOAT.onnx [--data digits] [--json FILE]

For each quantiser: SQNR of the logits (dB), agreement of the top-1 with FP32 and top-1, on the test and the hard split,
computed as the graph is written (optimisations off) and as this machine's kernels do; size and seconds. Other peers
(NNCF, ModelOpt, Quark) need environments of their own and are not run here.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx

from edgesmith.optimize.quantize import Settings, quantize
from edgesmith.optimize.quantize.commands import read_spec
from edgesmith.optimize.quantize.observe import session, sqnr_db
from edgesmith.runtime import datasets

SEVEN = {"per_channel": True, "calibrate_method": "MinMax", "reduce_range": True}
PEERS = {
    "onnxruntime default": {"per_channel": False, "calibrate_method": "MinMax"},
    "onnxruntime per-channel MinMax": {"per_channel": True, "calibrate_method": "MinMax"},
    "onnxruntime per-channel Percentile": {"per_channel": True, "calibrate_method": "Percentile"},
    "onnxruntime per-channel Entropy": {"per_channel": True, "calibrate_method": "Entropy"},
    "onnxruntime per-channel MinMax, 7-bit weights": {
        "per_channel": True,
        "calibrate_method": "MinMax",
        "reduce_range": True,
    },
}
OURS = {
    "edgesmith ort-x86": ("ort-x86", Settings()),
    "edgesmith ort-x86, nothing but ranges": ("ort-x86", Settings(None, refine=False, noise=0.0)),
    "edgesmith trt": ("trt", Settings()),
}


def peer(source, target, batches, options):
    """Quantise with onnxruntime's quantize_static (pre-processed as its documentation asks)."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter([{"input": batch} for batch in batches])

        def get_next(self):
            return next(self.left, None)

    method = getattr(CalibrationMethod, options["calibrate_method"])
    ready = target.with_name("ready.onnx")
    quant_pre_process(source, ready)
    quantize_static(
        ready,
        target,
        Reader(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        **{**options, "calibrate_method": method},
    )


def answers(path, images, optimise=False):
    opened = session(onnx.load(path), optimise=optimise)
    (given,) = opened.get_inputs()
    step = given.shape[0] if isinstance(given.shape[0], int) else 32
    parts = range(0, len(images), step)
    return np.concatenate([opened.run(None, {given.name: images[at : at + step]})[0] for at in parts])


def judge(path, splits, references):
    row = {}
    for name, (images, labels) in splits.items():
        for kind, optimise in (("written", False), ("here", True)):
            value = answers(path, images, optimise)
            row[f"{name} {kind}"] = {
                "sqnr_db": round(sqnr_db(references[name], value), 2),
                "agreement_percent": round(100 * float((value.argmax(1) == references[name].argmax(1)).mean()), 2),
                "top1_percent": round(100 * float((value.argmax(1) == labels).mean()), 2),
            }
    return row


def main(source, data, every):
    spec = read_spec(source)
    load = lambda split: datasets.load(data, split)  # noqa: E731
    batches = list(load("calibration").batches(spec, 1 if _fixed(source) else 16))
    splits = {}
    for name in ("test", "hard"):
        split = load(name).head(every)
        splits[name] = np.concatenate(list(split.batches(spec, 32))), split.labels
    references = {name: answers(source, images) for name, (images, _) in splits.items()}
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for label in (*OURS, *PEERS):
            target, started = Path(folder) / "q.onnx", time.perf_counter()
            if label in OURS:
                quantize(source, target, batches, target=OURS[label][0], settings=OURS[label][1])
            else:
                peer(source, target, batches, PEERS[label])
            seconds = time.perf_counter() - started
            rows[label] = {"seconds": round(seconds, 1), "bytes": target.stat().st_size}
            rows[label] |= judge(target, splits, references)
            print(label, json.dumps(rows[label]), flush=True)  # noqa: T201
    return rows


def _fixed(source):
    return onnx.load(source).graph.input[0].type.tensor_type.shape.dim[0].dim_value > 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=10**6, help="at most so many of each split")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found = main(given.source, given.data, given.images)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(0)
