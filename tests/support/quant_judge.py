"""What a quantised file keeps."""

import numpy as np
import onnx

from edgesmith.optimize.calibration.ort_runs import session
from edgesmith.optimize.calibration.sqnr import sqnr_db

# How Q/DQ are computed: in float as they are written, or by this machine's integer kernels.
KINDS = {"written": False, "here": True}


def answers(path, images, integers=False):
    """Return the first output for all images."""
    opened = session(onnx.load(path), optimise=True, integers=integers, threads=1)
    (given,) = opened.get_inputs()
    step = given.shape[0] if isinstance(given.shape[0], int) else 32
    parts = range(0, len(images), step)
    return np.concatenate([opened.run(None, {given.name: images[at : at + step]})[0] for at in parts])


def judge(path, splits, references):
    """Return what a quantised file keeps, on each split, as written and as computed here."""
    row = {}
    for name, (images, labels) in splits.items():
        for kind, integers in KINDS.items():
            row[f"{name} {kind}"] = kept(references[name], answers(path, images, integers), labels)
    return row


def kept(reference, value, labels):
    """Return SQNR in dB, agreement of the top-1 and top-1 in per cent."""
    return {
        "sqnr_db": round(sqnr_db(reference, value), 2),
        "agreement_percent": round(100 * float((value.argmax(1) == reference.argmax(1)).mean()), 2),
        "top1_percent": round(100 * float((value.argmax(1) == labels).mean()), 2),
    }
