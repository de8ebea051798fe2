"""`edgesmith` with torchvision importable beside CPU torch, for networks of timm and torchvision."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    if any(word.startswith(("timm:", "torchvision:")) for word in sys.argv[1:]):
        from corpus.beside_cpu_torch import allow_torchvision

        allow_torchvision()
    from edgesmith.cli import main as command

    command()


if __name__ == "__main__":
    main()
