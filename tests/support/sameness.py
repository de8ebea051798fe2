"""What two bundles made by the same command must share: every byte, but for measured times.

The fields that may differ are named here and nowhere else; docs/trust.md prints the list.
"""

import hashlib
import json
from pathlib import Path

VOLATILE = ("p50_s", "p99_s", "samples", "latency_missing", "seconds", "build_s", "verify_s", "speed")
"""Seconds, speeds and how many measurements there were, wherever they stand in the manifest or a sidecar."""


def core(folder: Path) -> dict[str, str]:
    """Return a digest for each file of a bundle, the volatile fields of JSON files left out."""
    return {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _digest(path: Path) -> str:
    data = json.dumps(_values(path), sort_keys=True).encode() if path.suffix == ".json" else path.read_bytes()
    return hashlib.sha256(data).hexdigest()


def _values(path: Path):
    """Return what a JSON file says, without what may differ."""
    values = _without(json.loads(path.read_bytes()))
    if path.name == "manifest.json":  # sidecars hold seconds, so their own digests differ too
        values["files"] = {name: entry for name, entry in values["files"].items() if not name.endswith(".json")}
        values["provenance"].get("settings", {}).pop("out", None)
        for check in values.get("results", {}).get("checks", []):
            if check["name"].startswith("speed "):  # its words and verdict are a measurement
                del check["detail"], check["passed"]
    return values


def _without(value):
    if isinstance(value, dict):
        return {key: _without(item) for key, item in value.items() if key not in VOLATILE}
    return [_without(item) for item in value] if isinstance(value, list) else value


def differences(one: Path, other: Path) -> list[str]:
    """Name the files that differ beyond the volatile fields, and for JSON the first place where they do."""
    first, second = core(one), core(other)
    names = sorted(set(first) | set(second))
    return [_where(one, other, name) for name in names if first.get(name) != second.get(name)]


def _where(one: Path, other: Path, name: str) -> str:
    if not name.endswith(".json") or not ((one / name).is_file() and (other / name).is_file()):
        return name
    return f"{name}: {_first(*(_values(folder / name) for folder in (one, other)))}"


def _first(one, other, place=""):
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            if one.get(key) != other.get(key):
                return _first(one.get(key), other.get(key), f"{place}/{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                return _first(left, right, f"{place}/{at}")
    return f"{place}: {str(one)[:60]} and {str(other)[:60]}"
