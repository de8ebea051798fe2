"""What `edgesmith sweep` measures: networks by name, at several resolutions, become bundles with random weights."""

from __future__ import annotations

from pathlib import Path

from ..runtime.errors import UsageError


def sweep_targets(paths: tuple[str, ...], resolutions: str, bundles: Path) -> list[str]:
    """Return what to measure: paths as they are, and for each network's name a bundle for each resolution.

    Args:
        paths: Bundles, files, and names of networks.
        resolutions: Sides in pixels, as "160,224"; "" for the network's own.
        bundles: Where bundles of networks stand; those that are absent are made, with random weights.

    Raises:
        UsageError: A resolution is not a number, or was given where there is no network to make.
        EdgesmithError: A network cannot be made at this resolution.
    """
    sides = [_side(word) for word in resolutions.split(",") if word]
    names = [path for path in paths if not Path(path).exists() and "/" not in path and not Path(path).suffix]
    if sides and not names:
        raise UsageError(
            "--resolutions needs networks given by name", got=", ".join(paths), expected="such as mobilenetv2",
            do="give the name of a network: the resolution of a bundle or file is fixed when it is exported",
        )  # fmt: skip
    targets: list[str] = []
    for path in paths:
        targets += [str(bundle) for bundle in _bundles(path, sides, bundles)] if path in names else [path]
    return targets


def _bundles(name: str, sides: list[int], bundles: Path) -> list[Path]:
    from ..export import untrained
    from ..models import catalog

    known = catalog.find_network(name).name
    return [untrained.ensure(known, bundles, side) for side in sides or [0]]


def _side(word: str) -> int:
    if not word.strip().isdecimal() or not 8 <= int(word) <= 4096:
        raise UsageError("a resolution is not valid", got=repr(word), expected="pixels, such as 160,224")
    return int(word)
