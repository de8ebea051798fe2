"""The two pictures of the README: the stages, drawn from the code, and a recording of a command in a terminal.

python tests/support/pictures.py [COMMAND ...]     # without a command only the stages are drawn again
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "pictures"
# What is checked after each stage of `export/pipeline.py`; stages that check nothing of their own are None.
CHECKED = {
    "weights": None, "data": None, "read": None,
    "export": "parity with torch", "parity": None, "optimize": "each rewrite compared", "preprocessing": None,
    "precision": "accuracy, two splits", "pixels": None, "engines": "kernels read back", "measure": "INT8 raced",
    "bundle": "digests", "verify": "outputs replayed",
}  # fmt: skip
COLUMNS, LINE, CHARACTER, SIZE = 80, 17, 7.8, 13
SHOWN_S, PAUSE_S = 14.0, 6.0  # a whole run is shown in so many seconds, and then stays so long


def stages() -> list[str]:
    """Return the stages of the flow that check something, in the code's order."""
    code = "".join((ROOT / "export" / name).read_text() for name in ("raw_graph.py", "pipeline.py"))
    named = list(dict.fromkeys(re.findall(r'flow\.stage\("(\w+)"', code)))
    if unknown := set(named) ^ set(CHECKED):
        raise ValueError(f"export/pipeline.py and this file have different stages: {sorted(unknown)}")
    return [name for name in CHECKED if CHECKED[name]]


def stages_svg() -> str:
    """Return the diagram of the stages, with what is checked after each."""
    width, step = 1000, 142
    boxes = []
    for at, name in enumerate(stages()):
        x = 4 + at * step
        arrow = f'<path d="M{x + 122} 40h14m-5-4l5 4-5 4" class="line"/>' if at < len(stages()) - 1 else ""
        boxes.append(
            f'<rect x="{x}" y="20" width="120" height="40" rx="6" class="box"/>'
            f'<text x="{x + 60}" y="45" class="name">{name}</text>{arrow}'
            f'<text x="{x + 60}" y="80" class="check">✓ {escape(CHECKED[name] or "")}</text>'
        )
    style = (
        ".box{fill:#2563eb1a;stroke:#2563eb}.line{fill:none;stroke:#64748b;stroke-width:1.5}"
        "text{font-family:system-ui,sans-serif;text-anchor:middle}.name{font-size:16px;font-weight:600;fill:#2563eb}"
        ".check{font-size:11px;fill:#16a34a}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 96" role="img" '
        f'aria-label="stages: {", ".join(stages())}"><style>{style}</style>{"".join(boxes)}</svg>\n'
    )


def record(command: Sequence[str]) -> list[tuple[float, str]]:
    """Run a command at 80 columns and return its lines, each with the second at which it came."""
    variables = {**os.environ, "COLUMNS": str(COLUMNS), "PYTHONUNBUFFERED": "1"}
    began, lines = time.monotonic(), []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables, cwd=ROOT
    ) as child:
        for line in child.stdout or ():
            lines.append((time.monotonic() - began, line.rstrip()))
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}: {lines[-1:]}")
    return lines


def recording_svg(typed: str, lines: Sequence[tuple[float, str]]) -> str:
    """Return a moving picture of a terminal: each line appears when it came, the whole time scaled to SHOWN_S."""
    lines = [line for at, line in enumerate(lines) if line[1] or (at and lines[at - 1][1])]
    total, whole = lines[-1][0], SHOWN_S + PAUSE_S
    height, width = (len(lines) + 3) * LINE, COLUMNS * CHARACTER + 28
    rows = [f'<text y="{LINE + 8}" class="typed">$ {escape(typed)}</text>']
    for number, (second, text) in enumerate(lines):
        start = 0.5 + (SHOWN_S - 0.5) * second / total
        kind = "title" if second == total and text.strip().endswith("s)") else "line"
        rows.append(
            f'<text y="{(number + 2) * LINE + 8}" class="{kind}" opacity="0">{escape(text)}'
            f'<animate attributeName="opacity" values="0;0;1;1" keyTimes="0;{start / whole:.4f};{start / whole:.4f};1" '
            f'dur="{whole:g}s" repeatCount="indefinite"/></text>'
        )
    style = (
        f"text{{font:{SIZE}px ui-monospace,'DejaVu Sans Mono',monospace;white-space:pre;fill:#e2e8f0}}"
        ".typed{fill:#86efac}.title{fill:#86efac}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
        f'aria-label="terminal: {escape(typed)}"><style>{style}</style>'
        f'<rect width="100%" height="100%" rx="8" fill="#0f172a"/><g transform="translate(14,0)" xml:space="preserve">'
        f"{''.join(rows)}</g></svg>\n"
    )


def main() -> None:
    """Draw the stages, and record the command that is given."""
    (FOLDER / "stages.svg").write_text(stages_svg(), encoding="utf-8")
    if command := sys.argv[1:]:
        (FOLDER / "export.svg").write_text(recording_svg(" ".join(command), record(command)), encoding="utf-8")


if __name__ == "__main__":
    main()
