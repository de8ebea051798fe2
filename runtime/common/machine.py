"""The processor, and the cores that this process may use, from files of the system; no program is run."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from pathlib import Path

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
VECTOR_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm",
)  # fmt: skip
INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "asimddp", "i8mm"})


def read_text(path: str | Path) -> str:
    """Return a system file's text, or an empty string if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@functools.lru_cache(maxsize=1)
def cpu() -> tuple[str, frozenset[str]]:
    """Return the processor's name and its flags (empty if the system does not report them)."""
    fields: dict[str, str] = {}
    for line in read_text("/proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine()
    return name, frozenset(fields.get("flags", fields.get("Features", "")).split())


def cores() -> int:
    """Return how many cores this process may use: its affinity, limited by a container's CPU quota; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _quota(allowed)))


def _quota(otherwise: int) -> int:
    """Read a cgroup's quota: version 2 `cpu.max`, version 1 `cpu.cfs_quota_us`; rounded to whole cores."""
    quota, _, period = read_text("/sys/fs/cgroup/cpu.max").partition(" ")
    if not period:
        quota = read_text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
        period = read_text("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    try:
        ratio = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return otherwise
    return round(ratio) if ratio > 0 else otherwise


def memory_bytes() -> int | None:
    """Return how much memory this process may use: the machine's, or less in a container (cgroup); None if unknown."""
    limits = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for line in read_text("/proc/self/cgroup").splitlines():
        _, controllers, inside = line.split(":", 2)
        root, name = ("", "memory.max") if not controllers else ("memory", "memory.limit_in_bytes")
        if controllers and "memory" not in controllers.split(","):
            continue
        place = Path("/sys/fs/cgroup", root, inside.lstrip("/"))
        for folder in (place, *place.parents):
            if folder.is_relative_to("/sys/fs/cgroup"):
                limits += [int(text) for text in (read_text(folder / name).strip(),) if text.isdecimal()]
    return min(limits, default=None)


def thread_counts() -> list[int]:
    """Return the thread counts to try, largest first: usable cores, physical cores, 1."""
    usable = cores()
    siblings = read_text("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").strip()
    physical = max(1, usable // 2) if "," in siblings or "-" in siblings else usable
    return sorted({usable, physical, 1}, reverse=True)


def gpu_possible() -> bool:
    """Return whether there may be an NVIDIA GPU, from device files, without loading a GPU library."""
    if platform.system() != "Linux":
        return True
    return any(next(Path("/dev").glob(pattern), None) for pattern in ("nvidia[0-9]*", "nvgpu*", "nvhost-*gpu*", "dxg"))
