"""A bundle: one folder (or .zip) with all that a device needs to run a network and to prove that it runs it right.

    from edgesmith.runtime import bundle
    opened = bundle.read("bundles/mobilenetv2")
    bundle.verify(opened).verdict

Its names are looked up on first access: reading a manifest loads neither Pillow nor a backend.
"""

from importlib import import_module
from typing import Any

PUBLIC = {
    "Bundle": "bundle", "read": "bundle", "opened": "bundle", "Item": "writer", "write": "writer", "pack": "writer",
    "sign": "writer", "TOLERANCES": "writer",
}  # fmt: skip
__all__ = [*PUBLIC, "verify"]


def __getattr__(name: str) -> Any:
    if name == "verify":
        return import_module("..verify", __name__).verify
    if name in PUBLIC:
        return getattr(import_module(f".{PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
