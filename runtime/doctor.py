"""What this machine has, what it lacks for which purpose, and the command that mends it. Reads only, installs none."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import backends
from .choose import usable
from .machine import INT8_FLAGS, VECTOR_FLAGS, cores, cpu, read_text
from .plugins import names

NUMPY_OLDEST, PYTHON_OLDEST = (1, 24), (3, 10)


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `state` is "ok", "missing", "broken" or "unknown"; `mend` a command or a sentence."""

    what: str
    state: str
    found: str = ""
    mend: str = ""


def examine() -> list[Finding]:
    """Look at the machine, the packages, the backends, the GPU and, on a Jetson, its board."""
    looks: tuple[Callable[[], list[Finding]], ...] = (_system, _packages, _backends, _gpu, _jetson)
    return [finding for look in looks for finding in look()]


def _system() -> list[Finding]:
    python = platform.python_version()
    old = sys.version_info < PYTHON_OLDEST
    return [
        Finding("python", "broken" if old else "ok", python, "install Python 3.10 or newer" if old else ""),
        Finding("system", "ok", f"{platform.system()} {platform.release()} on {platform.machine()}"),
        _cpu(),
    ]


def _cpu() -> Finding:
    name, flags = cpu()
    useful = " ".join(flag for flag in VECTOR_FLAGS if flag in flags) or "flags unknown"
    slow = flags and not flags & INT8_FLAGS
    mend = "no INT8 dot product here: measure INT8 against FP32 before you ship it" if slow else ""
    return Finding("cpu", "ok", f"{name}, {cores()} usable cores; {useful}", mend)


def _packages() -> list[Finding]:
    uses = {"numpy": "everything", "pillow": "image files", "click": "the command line", "rich": "tables",
            "onnx": "`optimize`, `quantize`", "torch": "`train`, `export`"}  # fmt: skip
    return [_package(name, use) for name, use in uses.items()]


def _package(name: str, use: str) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        extra = {"onnx": "'edgesmith[optimize]'", "torch": "'edgesmith[export]'"}.get(name, name)
        return Finding(name, "missing", f"needed for {use}", f"pip install {extra}")
    return Finding(name, "ok", f"{version} for {use}")


def _backends() -> list[Finding]:
    found = []
    for name in names(backends):
        try:
            ready, reason = usable(name)
        except Exception as error:
            found.append(Finding(f"backend {name}", "broken", f"{type(error).__name__}: {error}", "reinstall it"))
            continue
        text, _, mend = reason.partition(": ")
        found.append(Finding(f"backend {name}", "ok" if ready else "missing", text, mend))
    return found


def _gpu() -> list[Finding]:
    """Ask the driver's files, not a library, so that a broken CUDA installation cannot take us down."""
    driver = read_text("/proc/driver/nvidia/version").splitlines()
    if driver:
        return [Finding("nvidia driver", "ok", driver[0][:120])]
    present = any(
        read_text(path).strip() == "0x10de" and read_text(path.with_name("class")).startswith("0x03")
        for path in Path("/sys/bus/pci/devices").glob("*/vendor")
    )
    if present:
        return [Finding("nvidia driver", "broken", "an NVIDIA GPU without a driver", "install the NVIDIA driver")]
    return [Finding("nvidia driver", "missing", "no NVIDIA GPU found; engines can still be built for a named SM")]


def _jetson() -> list[Finding]:
    model = read_text("/proc/device-tree/model").strip("\0\n ")
    if "jetson" not in model.lower() and not Path("/etc/nv_tegra_release").exists():
        return []
    release = read_text("/etc/nv_tegra_release").splitlines()
    mode = read_text("/var/lib/nvpmodel/status").strip()
    return [
        Finding("jetson", "ok", model or "a Jetson"),
        Finding("L4T", "ok" if release else "unknown", release[0][:100] if release else "no /etc/nv_tegra_release"),
        Finding(
            "power mode", "ok" if mode else "unknown", mode or "unknown", "" if mode else "`sudo nvpmodel -q` shows it"
        ),
    ]
