"""Run mypy on the package: it cannot find an editable root package, so it is shown one through a symlink."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["models", "export", "optimize", "runtime", "bench", "cli"]


def main() -> int:
    """Type-check every module of the package; the exit code is mypy's."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "edgesmith"
        link.mkdir()
        for path in [*ROOT.glob("*.py"), *(ROOT / name for name in FOLDERS)]:
            (link / path.name).symlink_to(path)
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"),
                   "--cache-dir", str(ROOT / ".mypy_cache"), "-p", "edgesmith"]  # fmt: skip
        return subprocess.run(command, cwd=folder, env={**os.environ, "MYPYPATH": folder}).returncode


if __name__ == "__main__":
    sys.exit(main())
