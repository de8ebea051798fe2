"""The installed and the missing components, their purpose, and the commands that install them; installs nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..runtime import backends
from ..runtime.common.machine import INT8_FLAGS, VECTOR_FLAGS, cores, cpu, gpu_possible, read_text
from ..runtime.common.plugins import plugin_names
from ..runtime.errors import EdgesmithError
from ..runtime.selection.candidates import usable

PYTHON_OLDEST = (3, 10)
# L4T's first number -> JetPack, https://developer.nvidia.com/embedded/jetpack-archive
_JETPACK = {"32": "JetPack 4", "35": "JetPack 5", "36": "JetPack 6", "38": "JetPack 7"}
_PURPOSE = {
    "tensorrt": "runs and builds engines on Jetson and in data centres",
    "tensorrt_rtx_cu13_bindings": "builds engines for RTX GPUs, even on a machine without a GPU",
    "cuda-bindings": "lets Python talk to the GPU",
    "opencv-python-headless": "videos and cameras for `run --source`",
}
_INSTALL = {
    "tensorrt": "on a Jetson: sudo apt install python3-libnvinfer; elsewhere: pip install tensorrt",
    "tensorrt_rtx_cu13_bindings": "pip install 'edgesmith[trt-rtx]'",
    "cuda-bindings": "pip install cuda-bindings",
    "opencv-python-headless": "pip install opencv-python-headless",
}


@dataclass(frozen=True)
class Component:
    """One component: `state` is "ok", "missing", "broken" or "unknown"; `mend` is a command or a sentence."""

    what: str
    state: str
    found: str = ""
    mend: str = ""


def examine() -> list[Component]:
    """Examine the machine, the packages, the backends, the GPU and, on a Jetson, the board."""
    looks: tuple[Callable[[], list[Component]], ...] = (
        _system,
        _packages,
        _backends,
        _tensorrt,
        _gpu,
        _clocks,
        _jetson,
    )
    return [finding for look in looks for finding in look()]


def _system() -> list[Component]:
    python = platform.python_version()
    old = sys.version_info < PYTHON_OLDEST
    return [
        Component("python", "broken" if old else "ok", python, "install Python 3.10 or newer" if old else ""),
        Component("system", "ok", f"{platform.system()} {platform.release()} on {platform.machine()}"),
        _cpu(),
    ]


def _cpu() -> Component:
    name, flags = cpu()
    useful = " ".join(flag for flag in VECTOR_FLAGS if flag in flags) or "flags unknown"
    slow = flags and not flags & INT8_FLAGS
    mend = "this CPU has no INT8 dot product instruction: compare INT8 with FP32 before you ship it" if slow else ""
    return Component("cpu", "ok", f"{name}, {cores()} usable cores; {useful}", mend)


def _packages() -> list[Component]:
    uses = {"numpy": "everything", "pillow": "image files", "click": "the command line", "rich": "tables",
            "onnx": "`optimize`, `quantize`", "torch": "`train`, `export`"}  # fmt: skip
    return [_package(name, use) for name, use in uses.items()]


def _package(name: str, use: str) -> Component:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        extra = {"onnx": "'edgesmith[optimize]'", "torch": "'edgesmith[export]'"}.get(name, name)
        return Component(name, "missing", f"needed for {use}", f"pip install {extra}")
    return Component(name, "ok", f"{version} for {use}")


def _backends() -> list[Component]:
    components = []
    for name in plugin_names(backends):
        try:
            ready, reason = usable(name)
        except Exception as error:
            components.append(
                Component(f"backend {name}", "broken", f"{type(error).__name__}: {error}", "reinstall it")
            )
            continue
        text, _, mend = reason.partition(": ")
        components.append(Component(f"backend {name}", "ok" if ready else "missing", text, mend))
    return components


def _tensorrt() -> list[Component]:
    """Name the TensorRT packages by their metadata; an import can take a second, or crash the process."""
    components = []
    for name in ("tensorrt", "tensorrt_rtx_cu13_bindings", "cuda-bindings", "opencv-python-headless"):
        try:
            components.append(Component(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            components.append(Component(name, "missing", _PURPOSE[name], _INSTALL[name]))
    return components


def _gpu() -> list[Component]:
    """Read the driver's files first, not a library, so that a broken CUDA installation cannot crash this process."""
    driver = read_text("/proc/driver/nvidia/version").splitlines()
    cards = [read_text(path) for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    card_names = [
        line.partition(":")[2].strip() for card in cards for line in card.splitlines() if line.startswith("Model")
    ]
    if driver or gpu_possible():
        return [Component("nvidia driver", "ok", driver[0][:120] if driver else "a device file"), _sm(card_names)]
    if any(_is_nvidia(path) for path in Path("/sys/bus/pci/devices").glob("*/vendor")):
        return [Component("nvidia driver", "broken", "an NVIDIA GPU without a driver", "install the NVIDIA driver")]
    return [
        Component("nvidia driver", "missing", "no NVIDIA GPU here", "none needed: engines can be built for a named SM")
    ]


def _is_nvidia(vendor: Path) -> bool:
    return read_text(vendor).strip() == "0x10de" and read_text(vendor.with_name("class")).startswith("0x03")


def _sm(names: list[str]) -> Component:
    from ..runtime.engines import gpu

    try:
        return Component("gpu", "ok", f"SM {gpu.device_sm()} {', '.join(names)}".strip())
    except EdgesmithError as error:
        return Component("gpu", "broken", str(error), getattr(error, "do", "") or "pip install cuda-bindings")


def _clocks() -> list[Component]:
    """Report whether the CPU governor saves power: latency may then double."""
    governor = read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    if not governor:
        return [Component("cpu clock", "unknown", "the system does not report it (a virtual machine or container)")]
    saving = governor in ("powersave", "conservative", "ondemand", "schedutil")
    mend = "sudo cpupower frequency-set -g performance, while you measure" if saving else ""
    return [Component("cpu clock", "ok", f"governor {governor}", mend)]


def _jetson() -> list[Component]:
    model = read_text("/proc/device-tree/model").strip("\0\n ")
    release = read_text("/etc/nv_tegra_release").splitlines()
    if "jetson" not in model.lower() and not release:
        return []
    text = release[0] if release else ""
    match = re.search(r"R(\d+) .*REVISION: ([\d.]+)", text)
    jetpack = _JETPACK.get(match[1], "unknown") if match else "unknown"
    mode = read_text("/var/lib/nvpmodel/status").strip()
    clocks = read_text("/sys/devices/gpu.0/devfreq/17000000.gpu/governor").strip()
    return [
        Component("jetson", "ok", model or "a Jetson"),
        Component(
            "jetpack", "ok" if match else "unknown", f"{jetpack} (L4T {match[1]}.{match[2]})" if match else text[:80]
        ),
        Component(
            "power mode",
            "ok" if mode else "unknown",
            mode,
            "sudo nvpmodel -q shows it; sudo nvpmodel -m 0 sets the highest",
        ),
        Component("gpu clock", "ok" if clocks else "unknown", clocks, "sudo jetson_clocks, while you measure"),
    ]
