"""The highest signed version of each network that ran on this device; a lower one is not loaded.

One file per network and key, in $EDGESMITH_STATE, else $XDG_STATE_HOME/edgesmith, else ~/.local/state/edgesmith.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.cache_folder import own_folder, private_folder
from ..common.files import atomic_file, locked
from ..errors import BundleError, EdgesmithError

if TYPE_CHECKING:
    from .bundle import Bundle
    from .signing import Keys

VARIABLE = "EDGESMITH_STATE"


@contextlib.contextmanager
def admitted(bundle: Bundle, keys: Keys | None, name: str | None, min_version: int, allow: bool) -> Iterator[None]:
    """Check a bundle before the block, which loads it; afterwards remember its version.

    Args:
        bundle: The bundle.
        keys: Public keys, as for `read_bundle`.
        name: The network that it must be; None allows any.
        min_version: Lowest version that its signature may have.
        allow: Load a lower version than this device ran before.

    Raises:
        BundleError: It is not signed as required, or its version is lower than one that ran here.
        EdgesmithError: The version cannot be read or written.
    """
    signature = bundle.check_signature(keys, name, min_version)
    if signature is None:
        yield
        return
    file = versions_folder() / f"{bundle.spec.name}-{signature.key[:32]}"
    if (highest := _highest(file)) > signature.version and not allow:
        raise BundleError(
            f"{bundle.source} is an older version of {bundle.spec.name}", got=f"version {signature.version}",
            expected=f"{highest} or higher, which ran on this device",
            do="load the newer one; load(…, allow_rollback=True) or `run --allow-rollback` goes back",
        )  # fmt: skip
    yield
    if signature.version > highest:
        _remember(file, signature.version)


def versions_folder() -> Path:
    """Return the folder of the versions; it need not exist."""
    return own_folder(VARIABLE, "XDG_STATE_HOME", ".local/state") / "versions"


def _highest(file: Path) -> int:
    try:
        return int(file.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise EdgesmithError(
            f"cannot read {file}", got=str(error)[:100], expected="the version of a network that ran here",
            do="check who changed it; remove it to begin again",
        ) from error  # fmt: skip


def _remember(file: Path, version: int) -> None:
    private_folder(file.parent, VARIABLE)
    with locked(file):
        if version > _highest(file):
            with atomic_file(file) as temporary:
                temporary.write_text(f"{version}\n", encoding="ascii")
