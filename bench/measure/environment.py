"""Description of the measuring machine, so that results of different machines are never mixed.

A fact that the machine does not report is None, never a guess.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx_cu13_bindings")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True)
class Environment:
    """One machine and its software: everything that can change a latency."""

    cpu: str
    cores: int
    memory_bytes: int | None
    flags: tuple[str, ...]
    governor: str | None
    turbo: bool | None
    system: str
    python: str
    packages: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    power_mode: str | None = None

    def machine(self) -> str:
        """Return a short digest of the hardware only: equal for all runs on one machine, with any software."""
        facts = [self.cpu, self.cores, list(self.flags), self.device, self.power_mode]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]

    def differences(self, other: Environment) -> list[str]:
        """List the facts in which two environments differ, as «name: a -> b»."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{key}: {mine[key]} -> {theirs[key]}" for key in mine if mine[key] != theirs[key]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "flags": list(self.flags)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Environment:
        """Read what `to_dict` wrote."""
        return cls(**{**values, "flags": tuple(values["flags"])})


def here() -> Environment:
    """Return the facts of this machine."""
    cpuinfo = _text("/proc/cpuinfo")
    known = set(_field(cpuinfo, "flags").split()) | set(_field(cpuinfo, "Features").split())
    return Environment(
        cpu=_field(cpuinfo, "model name") or platform.processor() or platform.machine(),
        cores=_cores(),
        memory_bytes=_memory(),
        flags=tuple(flag for flag in _FLAGS if flag in known),
        governor=_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        turbo=_turbo(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages=_versions(),
        device=_text("/proc/device-tree/model").strip("\0") or None,
        power_mode=_text("/var/lib/nvpmodel/status") or None,
    )


def load_average() -> float | None:
    """Return the mean number of runnable processes over the last minute, or None if the system does not report it."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def cpu_ticks() -> tuple[float, float] | None:
    """Return (busy, total) seconds of all cores since boot, or None; two readings give the load between them."""
    first = _text("/proc/stat").split("\n")[0].split()
    if len(first) < 8 or first[0] != "cpu":
        return None
    second = os.sysconf("SC_CLK_TCK")
    return busy_ticks(first[1:]) / second, sum(map(int, first[1:9])) / second


def busy_ticks(counts: Sequence[str]) -> int:
    """Return the busy ticks of a line in /proc/stat: all except idle and iowait; proc(5)."""
    ticks = [int(value) for value in counts[:8]]
    return sum(ticks) - ticks[3] - ticks[4]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _turbo() -> bool | None:
    boost = _text("/sys/devices/system/cpu/cpufreq/boost")
    off = _text("/sys/devices/system/cpu/intel_pstate/no_turbo")
    return boost == "1" if boost else (off == "0" if off else None)


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _field(cpuinfo: str, name: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def command_line() -> str:
    """Return the command line of this process, without the folder of its program."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
