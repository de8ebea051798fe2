"""Build step in the child process: from an ONNX file to engine bytes with the TensorRT that the request names."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import BuildError, NotAvailable, UsageError
from . import _options, flavour, gpu
from .failures import explain
from .kernels import Kernel, attest, nodes_of, parse_inspector, parse_log

Event = Callable[[dict[str, Any]], None]
_TOTALS = {"weights_bytes": "Total Weights Memory: ", "activation_bytes": "Total Activation Memory: "}


def run_build(request: dict[str, Any], send: Event) -> dict[str, Any]:
    """Build the engine that the request describes, write it, and return the facts for the sidecar.

    Raises:
        EdgesmithError: NotAvailable, UsageError or BuildError, each with its cause.
    """
    trt = flavour.load_tensorrt(request["module"])
    log = _logger(trt)
    builder = _builder(trt, log)
    features = flavour.probe_features(trt)
    weak = _weak_flags(features, request["precision"])
    network = builder.create_network(_creation_flags(trt, features, weak))
    _parse(trt, network, log, request["onnx"])
    config, target = _config(trt, builder, features, request, weak)
    notes = _options.set_dla(trt, builder, network, config, request)
    timings = _timings(trt, config, request, target, notes)
    profiles = _profiles(builder, network, config, request)
    if features.progress_monitor:
        config.progress_monitor = monitor = _monitor(trt, send)  # noqa: F841 - the builder holds no reference
    started = time.perf_counter()
    blob = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - started
    if blob is None:
        raise _explained("build", request["onnx"], log.first_error())
    if timings:
        _options.save_timings(config, timings)
    with Path(request["out"]).open("wb") as file:
        file.write(blob)
    kernels = _kernels(trt, log, blob, features)
    precisions, products = _asked(trt, network, request["precision"]) if kernels else ({}, [])
    notes += [] if kernels else ["this TensorRT does not list kernels: the real precision was not checked"]
    return {
        "version": str(trt.__version__), "sm": target, "typing": "weak" if weak is not None else "strong",
        "flags": _flag_names(trt, config, request), "notes": notes, "build_s": seconds,
        "profiles": profiles, "warnings": log.warnings(),
        "attestation": asdict(attest(kernels, precisions, products)),
        "kernels": [kernel.to_dict() for kernel in kernels],
        "inputs": [_tensor(network.get_input(i)) for i in range(network.num_inputs)],
        "outputs": [_tensor(network.get_output(i)) for i in range(network.num_outputs)], **log.totals(),
    }  # fmt: skip


def _logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Collect the library's messages; only the first logger of a process is used."""

        def __init__(self) -> None:
            super().__init__()
            self.messages: list[tuple[int, str]] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= 3 or message.startswith("Layers:"):
                self.messages.append((int(severity), message))

        def first_error(self) -> str:
            errors = [text for severity, text in self.messages if severity <= 1]
            return errors[0] if errors else "no message"

        def warnings(self) -> list[str]:
            return list(dict.fromkeys(text for severity, text in self.messages if severity == 2))[:20]

        def layers(self) -> str:
            return next((text for _, text in reversed(self.messages) if text.startswith("Layers:")), "")

        def totals(self) -> dict[str, int]:
            text = "\n".join(message for _, message in self.messages)
            totals = {key: re.findall(re.escape(start) + r"(\d+)", text) for key, start in _TOTALS.items()}
            return {key: int(values[-1]) for key, values in totals.items() if values}

    return Log()


def _builder(trt: Any, log: Any) -> Any:
    try:
        return trt.Builder(log)
    except (TypeError, RuntimeError) as error:
        raise NotAvailable("this TensorRT cannot build here", got=f"{log.first_error()} ({error})",
                           do="standard TensorRT builds only on a machine with an NVIDIA GPU") from error  # fmt: skip


def _weak_flags(features: flavour.Features, precision: str) -> list[str] | None:
    """Return the precision flags of a weakly typed build; None if the network must be strongly typed."""
    if not features.weak_flags:
        return None
    wanted = {"fp32": (), "fp16": ("FP16",), "bf16": ("BF16",), "int8": ("INT8", "FP16")}[precision]
    if precision == "bf16" and "BF16" not in features.weak_flags:
        raise NotAvailable("this TensorRT has no BF16", expected="TensorRT 10 or later", do="build FP16 instead")
    return [name for name in wanted if name in features.weak_flags]


def _creation_flags(trt: Any, features: flavour.Features, weak: list[str] | None) -> int:
    kinds, value = trt.NetworkDefinitionCreationFlag, 0
    if features.explicit_batch_flag:
        value |= 1 << int(kinds.EXPLICIT_BATCH)
    if weak is None and features.strongly_typed_flag:
        value |= 1 << int(kinds.STRONGLY_TYPED)
    return value


def _parse(trt: Any, network: Any, log: Any, path: str) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(path) and network.num_outputs:
        return
    problems = [_problem(parser, index) for index in range(parser.num_errors)]
    raise _explained("read", path, problems[0] if problems else "a network without outputs")


def _explained(verb: str, path: str, message: str) -> BuildError:
    row = explain(message)
    cause, remedy = (f": {row.cause}", row.remedy) if row else ("", "run `edgesmith build --check-only` on it")
    return BuildError(f"TensorRT cannot {verb} {path}{cause}", got=message, do=remedy)


def _problem(parser: Any, index: int) -> str:
    try:
        error = parser.get_error(index)
        name = str(error.node_name()) if hasattr(error, "node_name") else ""
        operator = str(error.node_operator()) if hasattr(error, "node_operator") else "?"
        where = f"node {name or error.node()} ({operator}): " if operator else ""
        return where + str(error.desc())
    except UnicodeDecodeError:
        return "an error whose text is not UTF-8: the file is damaged"


def _config(
    trt: Any, builder: Any, features: flavour.Features, request: dict[str, Any], weak: list[str] | None
) -> tuple[Any, str]:
    config = builder.create_builder_config()
    for name in weak or ():
        config.set_flag(getattr(trt.BuilderFlag, name))
    if hasattr(config, "profiling_verbosity"):
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.get("workspace"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace"])
    if request.get("level") is not None and hasattr(config, "builder_optimization_level"):
        config.builder_optimization_level = request["level"]
    _options.set_flags(trt, config, request)
    _options.set_hardware_level(trt, config, request)
    return config, _target(trt, config, features, request["sm"])


def _timings(trt: Any, config: Any, request: dict[str, Any], sm: str, notes: list[str]) -> Path | None:
    """Load the timing cache if requested; return the path to save it to, None if it is not used."""
    if not request.get("timing_cache"):
        return None
    path = _options.timing_cache_path(request["timing_cache"], trt, sm, gpu.device_name())
    note = _options.load_timings(trt, config, path)
    notes += [note] if note else []
    return None if note else path


def _target(trt: Any, config: Any, features: flavour.Features, sm: str) -> str:
    if not features.cross_build:
        here = gpu.device_sm()
        if sm not in ("current", here):
            raise UsageError("standard TensorRT builds only for this GPU", got=f"SM {sm}", expected=f"SM {here}",
                             do="use TensorRT-RTX, or build on the device")  # fmt: skip
        return here
    known = flavour.sm_targets(trt)
    if sm != "current" and sm not in known:
        raise UsageError(f"TensorRT-RTX does not build for SM {sm}", expected=", ".join(known),
                         do="build on the device with standard TensorRT")  # fmt: skip
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, "CURRENT" if sm == "current" else known[sm]), 0)
    return gpu.device_sm() if sm == "current" else sm


def _profiles(builder: Any, network: Any, config: Any, request: dict[str, Any]) -> dict[str, Any]:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = {tensor.name: tuple(tensor.shape) for tensor in inputs if -1 in tuple(tensor.shape)}
    profiles = {name: [list(shape) for shape in shapes] for name, shapes in (request.get("shapes") or {}).items()}
    if unknown := sorted(set(profiles) - {tensor.name for tensor in inputs}):
        raise UsageError(f"there is no input {unknown[0]!r}", expected=", ".join(tensor.name for tensor in inputs))
    if not dynamic:
        return {}
    profile = builder.create_optimization_profile()
    chosen = {
        name: profiles.get(name) or _from_batch(name, dims, request.get("batch")) for name, dims in dynamic.items()
    }
    for name, (low, best, high) in chosen.items():
        profile.set_shape(name, low, best, high)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError("the optimisation profile is not valid", got=str(chosen), expected="min <= opt <= max")
    return chosen


def _from_batch(name: str, dims: tuple[int, ...], batch: list[int] | None) -> list[list[int]]:
    if batch is None or -1 in dims[1:]:
        raise UsageError(f"input {name!r} has dynamic dimensions {list(dims)} and no profile",
                         do="give --batch MIN,OPT,MAX or --shape NAME=MIN:OPT:MAX")  # fmt: skip
    return [[size, *dims[1:]] for size in batch]


def _monitor(trt: Any, send: Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Forward the builder's progress; True means continue."""

        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            send({"event": "phase", "name": name, "parent": parent, "steps": steps})

        def step_complete(self, name: str, step: int) -> bool:
            send({"event": "step", "name": name, "step": step})
            return True

        def phase_finish(self, name: str) -> None:
            send({"event": "end", "name": name})

    return Monitor()


def _kernels(trt: Any, log: Any, blob: Any, features: flavour.Features) -> list[Kernel]:
    kernels = parse_log(log.layers())
    if kernels or not features.inspector:
        return kernels
    engine = trt.Runtime(log).deserialize_cuda_engine(blob)
    inspector = engine.create_engine_inspector()
    return parse_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _asked(trt: Any, network: Any, precision: str) -> tuple[dict[str, str], list[str]]:
    """Return the requested precision of each convolution (INT8 if its input is dequantised), and products' names.

    "float" asks for any floating-point type.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    made_by = {layer.get_output(0).name: layer for layer in layers if layer.num_outputs}
    kinds = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION)
    names, convolutions = {}, [layer for layer in layers if layer.type in kinds]
    wide = {_onnx_name(layer) for layer in convolutions if layer.get_input(0).dtype == trt.float32}
    for layer in convolutions:
        producer, name = made_by.get(layer.get_input(0).name), _onnx_name(layer)
        quantised = producer is not None and producer.type == trt.LayerType.DEQUANTIZE
        names[name] = "int8" if quantised else "float" if precision == "int8" else precision
        # Of a file that is FP16 or BF16 elsewhere, the convolutions that read FP32 were left so on purpose.
        if precision in ("fp16", "bf16") and name in wide and len(wide) < len(convolutions):
            names[name] = "float"
    return names, [_onnx_name(layer) for layer in layers if layer.type == trt.LayerType.MATRIX_MULTIPLY]


def _onnx_name(layer: Any) -> str:
    return (*nodes_of(str(getattr(layer, "metadata", ""))), str(layer.name))[0]


def _flag_names(trt: Any, config: Any, request: dict[str, Any]) -> list[str]:
    hardware = [f"HARDWARE_{request['hardware'].upper()}"] if request.get("hardware") else []
    return sorted(name for name, flag in trt.BuilderFlag.__members__.items() if config.get_flag(flag)) + hardware


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dims": list(tensor.shape), "dtype": str(tensor.dtype).rpartition(".")[2].lower()}
