"""How fast quantised files are beside FP32, in ONNX Runtime and OpenVINO, and how near the machine's INT8 limit."""

import time

import numpy as np
import onnx

from edgesmith.bench.measure import machine_peaks
from edgesmith.optimize.calibration.ort_runs import session
from edgesmith.optimize.graph.protobuf import copied
from edgesmith.optimize.quantize.mixed_precision.latency_model import layer_work
from edgesmith.runtime.common.packages import need

WARM, QUARTILES = 3, (25, 50, 75)


def speeds(source, files, side, rounds):
    """Return how many times as fast as FP32 in ONNX Runtime each file is, in each runtime: quartiles over the rounds.

    In each round everything runs once, in turns, on one thread; FP32 of the same round is what it is divided by. The
    clock is the CPU time of this process: other work on the machine takes turns with it, and is not counted.

    Args:
        source: The FP32 file.
        files: Label -> quantised file.
        side: Height and width of the image, or the whole shape of the input; the files are given inputs of this size.
        rounds: How often everything runs.

    Returns:
        Label ("fp32" too) -> runtime -> quartiles, least milliseconds, and `share`: multiply-accumulates a second of
        the quickest run beside the highest rate of a dense INT8 convolution here (FP32 for "fp32").
    """
    models = {label: sized(onnx.load(file), side) for label, file in {"fp32": source, **files}.items()}
    macs = sum(work.operations for work in layer_work(models["fp32"]).values()) / 2
    given = models["fp32"].graph.input[0].type.tensor_type.shape.dim
    image = np.random.default_rng(0).standard_normal([1, *(dim.dim_value for dim in given[1:])], dtype=np.float32)
    calls = {(label, runtime): call for label, model in models.items() for runtime, call in _calls(model, image)}
    seconds = {key: [] for key in calls}
    for number in range(rounds + WARM):
        for key, call in calls.items():
            started = time.process_time()
            call()
            if number >= WARM:
                seconds[key].append(time.process_time() - started)
    fp32, rates, rows = np.array(seconds["fp32", "ort"]), machine_peaks.measure_peaks(1).macs_per_s, {}
    for (label, runtime), taken in seconds.items():
        low, middle, high = np.percentile(fp32 / np.array(taken), QUARTILES).round(3).tolist()
        share = macs / min(taken) / rates["fp32" if label == "fp32" else "int8"]
        rows.setdefault(label, {})[runtime] = {
            "q25": low, "median": middle, "q75": high,
            "least_ms": round(1000 * min(taken), 3), "share": round(share, 3),
        }  # fmt: skip
    return rows


def sized(model, side):
    """Return a copy with batch 1 for images of another size: the same kernels, without fixed shapes inside."""
    copy = copied(model)
    constant = {tensor.name for tensor in copy.graph.initializer}
    (given,) = [item for item in copy.graph.input if item.name not in constant]
    dims = given.type.tensor_type.shape.dim
    shape = (1, dims[1].dim_value, side, side) if isinstance(side, int) else tuple(side)
    same = [dim.dim_value for dim in dims[1:]] == list(shape[1:])
    for dim, value in zip(dims, shape, strict=True):
        dim.dim_value = value
    if not same:
        del copy.graph.value_info[:]
    for item in copy.graph.output:
        item.type.tensor_type.shape.dim[0].dim_value = 1
    return copy


def _calls(model, image):
    """Yield (runtime, function that runs the model once) for each runtime that can."""
    for name, opened in (("ort", _ort), ("openvino", _openvino)):
        try:
            call = opened(model, image)
            call()
        except Exception as error:  # a runtime may raise anything; the others are measured all the same
            print(f"{name} does not run a file: {' '.join(str(error).split())[:200]}", flush=True)  # noqa: T201
            continue
        yield name, call


def _ort(model, image):
    opened = session(model, optimise=True, threads=1)
    name = opened.get_inputs()[0].name
    return lambda: opened.run(None, {name: image})


def _openvino(model, image):
    openvino = need("openvino")
    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()
    request = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options).create_infer_request()
    return lambda: request.infer({0: image})
