"""An environment of its own for packages of others, with our packages beside what is installed there."""

import subprocess
import sys
from pathlib import Path

import numpy as np


def python_beside_ours(place):
    """Make an empty environment that sees our packages, in place of one that is there; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
    (site,) = (place / "lib").glob("python*/site-packages")
    # Beside, not below: what is installed here comes first, and pip sees that ours is there already.
    (site / "zz-ours.pth").write_text(f"{Path(np.__file__).resolve().parents[1]}\n")
    return place / "bin" / "python"
