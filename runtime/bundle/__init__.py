"""A bundle: one folder (or .zip) with everything a device needs to run a network and to verify its outputs.

    from edgesmith.runtime import bundle
    opened = bundle.read("bundles/mobilenetv2")
    bundle.verify(opened).verdict

Names are looked up on first access: reading a manifest loads neither Pillow nor a backend.
"""

from importlib import import_module
from typing import Any

# public name -> (module, name there)
PUBLIC = {
    "Bundle": ("bundle", "Bundle"), "read": ("bundle", "read_bundle"), "opened": ("bundle", "open_bundle"),
    "Item": ("writer", "Item"), "write": ("writer", "write_bundle"), "pack": ("writer", "pack_bundle"),
    "sign": ("writer", "sign_bundle"), "TOLERANCES": ("writer", "TOLERANCES"),
    "verify": (".verify", "verify"),
}  # fmt: skip
__all__ = list(PUBLIC)


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        module, inner = PUBLIC[name]
        return getattr(import_module(f".{module}", __name__), inner)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
