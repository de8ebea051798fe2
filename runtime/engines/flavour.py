"""The installed TensorRT flavours and their features, detected without version numbers.

rtx       TensorRT-RTX (PyPI `tensorrt-rtx-cu13-*`, module `tensorrt_rtx_bindings` or `tensorrt_rtx`)
standard  TensorRT 8.5 to 11 (JetPack, data centre; module `tensorrt`)
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from typing import Any

from ..errors import NotAvailable, UsageError

MODULES = {"rtx": ("tensorrt_rtx_bindings", "tensorrt_rtx"), "standard": ("tensorrt",)}
INSTALL = {"rtx": "pip install 'edgesmith[trt-rtx]'", "standard": "install JetPack's TensorRT, or pip install tensorrt"}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class Features:
    """Features of the installed module; each field is one `hasattr`.

    `weak_flags` are the precision flags (FP16, INT8, BF16) of weakly typed networks; without them the
    network is strongly typed: its precision is defined in the ONNX file.
    """

    cross_build: bool
    weak_flags: tuple[str, ...]
    explicit_batch_flag: bool
    strongly_typed_flag: bool
    progress_monitor: bool
    dla: bool
    timing_cache: bool
    inspector: bool


def probe_features(trt: Any) -> Features:
    """Return the features of a TensorRT module."""
    flags = getattr(trt, "BuilderFlag", None)
    creation = getattr(trt, "NetworkDefinitionCreationFlag", None)
    config = getattr(trt, "IBuilderConfig", None)
    weak = tuple(name for name in ("FP16", "INT8", "BF16") if hasattr(flags, name))
    return Features(
        cross_build=hasattr(trt, "ComputeCapability") and hasattr(config, "set_compute_capability"),
        weak_flags=weak if weak != ("BF16",) else (),
        explicit_batch_flag=hasattr(creation, "EXPLICIT_BATCH"),
        strongly_typed_flag=hasattr(creation, "STRONGLY_TYPED"),
        progress_monitor=hasattr(trt, "IProgressMonitor") and hasattr(config, "progress_monitor"),
        dla=hasattr(getattr(trt, "DeviceType", None), "DLA"),
        timing_cache=hasattr(config, "create_timing_cache") and not hasattr(trt, "ComputeCapability"),
        inspector=hasattr(trt, "EngineInspector"),
    )


def installed_module(name: str) -> str | None:
    """Return the name of the installed module of a flavour, without importing it."""
    return next((module for module in MODULES[name] if importlib.util.find_spec(module)), None)


def choose_flavour(flavour: str, sm: str) -> tuple[str, str]:
    """Return (flavour, module) for a build.

    `auto` chooses TensorRT-RTX for a named SM (it can build for another GPU) and standard TensorRT for `current`; if
    that one is not installed, the other one.

    Raises:
        UsageError: No such flavour.
        NotAvailable: It is not installed.
    """
    if flavour not in (*MODULES, "auto"):
        raise UsageError(f"unknown TensorRT flavour {flavour!r}", expected="auto, " + ", ".join(MODULES))
    order = ("standard", "rtx") if sm == "current" else ("rtx", "standard")
    wanted = order if flavour == "auto" else (flavour,)
    for name in wanted:
        if module := installed_module(name):
            return name, module
    raise NotAvailable(
        f"TensorRT ({' or '.join(wanted)}) is not installed", do=" or ".join(INSTALL[name] for name in wanted)
    )


def load_tensorrt(module: str) -> Any:
    """Import a TensorRT module.

    Raises:
        NotAvailable: It is installed but cannot be loaded (a missing libcudart, another Python).
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        raise NotAvailable(f"the module {module} cannot be loaded", got=str(error), do="reinstall it") from error


def normal_sm(text: str) -> str:
    """Return a compute capability as "8.6", from "8.6", "86", "sm86" or "SM_86"; "current" is unchanged.

    Raises:
        UsageError: It is none of these.
    """
    plain = text.strip().lower()
    if plain == "current":
        return plain
    match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", plain)
    if not match:
        raise UsageError(f"{text!r} is not a compute capability", expected="8.6, 86, sm86 or current")
    return f"{match[1]}.{match[2]}"


def sm_targets(trt: Any) -> dict[str, str]:
    """Map each SM that the module can build for ahead of time to its enum member, {"8.6": "SM86"}."""
    members = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    matches = {name: re.fullmatch(r"SM(\d+)(\d)", name) for name in members}
    return {f"{match[1]}.{match[2]}": name for name, match in matches.items() if match}
