"""The targets of `edgesmith sweep`: for each network's name and resolution, a bundle with random weights."""

from __future__ import annotations

from pathlib import Path

from ..runtime.errors import UsageError


def sweep_targets(paths: tuple[str, ...], resolutions: str, bundles: Path) -> list[str]:
    """Return the paths unchanged, and for each network's name one bundle per resolution.

    Args:
        paths: Bundles, files, and names of networks.
        resolutions: Sides in pixels, as "160,224"; "" for the network's own.
        bundles: The folder of the networks' bundles; missing ones are made, with random weights.

    Raises:
        UsageError: A resolution is not a number, or was given without a network's name.
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
