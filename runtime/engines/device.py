"""Facts of this machine and its GPU that the requirements of an engine name."""

from __future__ import annotations

import platform

from ..errors import NotAvailable

ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


def machine_facts(flavour: str = "") -> dict[str, str]:
    """Return known facts of this machine: os, machine; with TensorRT its flavour and version; with a GPU sm, cuda."""
    machine = platform.machine().lower()
    known = {"os": platform.system().lower(), "machine": ARCHITECTURES.get(machine, machine)}
    if flavour:
        known |= _gpu_facts(flavour)
    return known


def gpu_facts() -> dict[str, str]:
    """Return the name and compute capability of the first GPU; empty if none can be used."""
    from ..engines import gpu as device

    try:
        return {"name": device.device_name(), "sm": device.device_sm()}
    except NotAvailable:
        return {}


def _gpu_facts(flavour: str) -> dict[str, str]:
    from ..engines import flavour as flavours
    from ..engines import gpu

    facts = {}
    module = flavours.installed_module(flavour)
    if module is not None:
        facts = {"flavour": flavour, "tensorrt": str(getattr(flavours.load_tensorrt(module), "__version__", ""))}
    try:
        return {**facts, "sm": gpu.device_sm(), "cuda": gpu.driver_cuda()}
    except NotAvailable:
        return facts
