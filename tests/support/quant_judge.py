"""What a quantised file keeps, and how fast it is beside the others."""

import time
import warnings

import numpy as np
import onnx

from edgesmith.optimize.quantize.observe import session, sqnr_db

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


def speeds(source, files, image, rounds):
    """Return how many times as fast as FP32 in ONNX Runtime each file is, in each runtime: quartiles over the rounds.

    In each round everything runs once, in turns, on one thread; FP32 of the same round is what it is divided by. The
    clock is the CPU time of this process: other work on the machine takes turns with it, and is not counted.
    """
    calls = {("fp32", "ort"): _ort(source, image)}
    for label, file in {"fp32": source, **files}.items():
        if label != "fp32":
            calls[label, "ort"] = _ort(file, image)
        if call := _openvino(file, image):
            calls[label, "openvino"] = call
    seconds = {key: [] for key in calls}
    for number in range(rounds + 3):
        for key, call in calls.items():
            started = time.process_time()
            call()
            if number >= 3:
                seconds[key].append(time.process_time() - started)
    fp32 = np.array(seconds["fp32", "ort"])
    rows = {}
    for (label, runtime), taken in seconds.items():
        low, middle, high = np.percentile(fp32 / np.array(taken), [25, 50, 75]).round(3).tolist()
        least = round(1000 * min(taken), 3)
        rows.setdefault(label, {})[runtime] = {"q25": low, "median": middle, "q75": high, "least_ms": least}
    return rows


def _ort(file, image):
    opened = session(onnx.load(file), optimise=True, threads=1)
    name = opened.get_inputs()[0].name
    return lambda: opened.run(None, {name: image})


def _openvino(file, image):
    try:
        import openvino

        options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(str(file), "CPU", options).create_infer_request()
    except (ImportError, RuntimeError) as error:
        warnings.warn(f"OpenVINO: {error}", stacklevel=1)
        return None
    return lambda: request.infer({0: image})
