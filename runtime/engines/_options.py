"""The builder's options: set if this TensorRT supports them, otherwise refused with a reason."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..common.files import atomic_file
from ..errors import BuildError, NotAvailable

# option -> the BuilderFlag behind it
FLAGS = {"refit": "REFIT", "strip": "STRIP_PLAN", "version_compatible": "VERSION_COMPATIBLE"}


def set_flags(trt: Any, config: Any, request: dict[str, Any]) -> None:
    """Set the requested flags.

    Raises:
        NotAvailable: This TensorRT has no such flag.
    """
    for option, name in FLAGS.items():
        if request.get(option):
            if not hasattr(trt.BuilderFlag, name):
                raise NotAvailable(f"TensorRT {trt.__version__} has no {name}", do=f"leave out --{option}")
            config.set_flag(getattr(trt.BuilderFlag, name))


def set_hardware_level(trt: Any, config: Any, request: dict[str, Any]) -> None:
    """Request an engine that other GPUs can also run: "ampere_plus" or "same_compute_capability".

    Raises:
        NotAvailable: This TensorRT has no such level.
    """
    wanted = (request.get("hardware") or "").upper()
    if not wanted:
        return
    levels = getattr(getattr(trt, "HardwareCompatibilityLevel", None), "__members__", {})
    if wanted not in levels or hasattr(trt, "ComputeCapability"):
        raise NotAvailable(f"TensorRT {trt.__version__} has no hardware compatibility level {wanted.lower()}",
                           do="with TensorRT-RTX build one engine per SM")  # fmt: skip
    config.hardware_compatibility_level = levels[wanted]


def set_dla(trt: Any, builder: Any, network: Any, config: Any, request: dict[str, Any]) -> list[str]:
    """Assign the network to a DLA core; return a note with the layers that fall back to the GPU.

    Raises:
        NotAvailable: No such core here.
        BuildError: Layers cannot run on the DLA and GPU fallback is not allowed.
    """
    core = request.get("dla")
    if core is None:
        return []
    cores = int(getattr(builder, "num_DLA_cores", 0))
    if not hasattr(getattr(trt, "DeviceType", None), "DLA") or core >= cores:
        raise NotAvailable(f"there is no DLA core {core}", got=f"{cores} cores", do="leave out --dla")
    config.default_device_type, config.DLA_core = trt.DeviceType.DLA, core
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    others = [str(layer.name) for layer in layers if not config.can_run_on_DLA(layer)]
    if others and not request.get("gpu_fallback"):
        raise BuildError(f"{len(others)} layers cannot run on the DLA", got=", ".join(others[:5]),
                         do="allow them on the GPU with --gpu-fallback, or change them")  # fmt: skip
    if others:
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    return [f"on the GPU instead of the DLA: {', '.join(others)}"] if others else []


def timing_cache_path(folder: str | Path, trt: Any, sm: str, device: str) -> Path:
    """Return the timing cache file for this build: one per TensorRT, version, SM and GPU model."""
    key = hashlib.sha256("|".join((trt.__name__, str(trt.__version__), sm, device)).encode()).hexdigest()[:16]
    return Path(folder) / f"{key}.timings"


def load_timings(trt: Any, config: Any, path: Path) -> str:
    """Load the timings of earlier builds; return a note if this TensorRT does not use any."""
    if hasattr(trt, "ComputeCapability"):
        return "TensorRT-RTX does not time kernels at build time; the timing cache is not used"
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    config.set_timing_cache(cache, False)
    return ""


def save_timings(config: Any, path: Path) -> None:
    """Save the timings of this build atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
