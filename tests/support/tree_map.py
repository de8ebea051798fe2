"""The map of the package's folders and files in docs/architecture.md: `PYTHONPATH=tests python -m support.tree_map`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("cli", "export", "models", "optimize", "bench", "runtime")
PAGE = "docs/architecture.md"
START = "<!-- The map, from the first docstring lines: written by tests/support/tree_map.py -->\n"


def first_line(file: Path) -> str:
    """Return the first line of a file's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]


def sources(folder: Path) -> list[Path]:
    """Return the modules of one folder, the package's own file left out."""
    return sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")


def lines(root: Path) -> Iterator[str]:
    """Yield the Markdown of the map: a heading and a line for each folder, a line for each of its files."""
    for top in FOLDERS:
        for package in sorted((root / top).rglob("__init__.py")):
            folder = package.parent
            yield f"\n{'###' if folder.parent == root else '####'} `{folder.relative_to(root)}/`\n"
            yield f"{first_line(package)}\n"
            yield from (f"- `{file.name}`: {first_line(file)}" for file in sources(folder))


def tree_map(root: Path = ROOT) -> str:
    """Return the map as it stands at the end of the page."""
    text = "\n".join(lines(root)).replace("\n\n\n", "\n\n")
    return f"{START}{text.rstrip()}\n"


def page(root: Path = ROOT) -> str:
    """Return the page with the map written anew."""
    return (root / PAGE).read_text().split(START)[0] + tree_map(root)


if __name__ == "__main__":
    (ROOT / PAGE).write_text(page())
