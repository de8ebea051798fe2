"""The rules of docs/architecture.md, read off the source: layering, sizes, and that each rule can fail."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"models", "export", "optimize", "runtime", "bench"}
MAY_IMPORT = {
    "runtime": set(),
    "models": {"runtime"},
    "optimize": {"runtime"},
    "bench": {"runtime"},
    "export": {"models", "runtime"},
}
ROOT_FILES = {path.stem for path in ROOT.glob("*.py")} - {"__init__"}
PACKAGES = {"torch": {"models", "export"}, "onnx": {"export", "optimize"}, "onnx_graphsurgeon": {"export", "optimize"}}
LONGEST_FUNCTION, LONGEST_FILE = 50, 300


def sources(root: Path = ROOT) -> list[Path]:
    return [
        *sorted(root.glob("*.py")),
        *(path for name in sorted(FOLDERS) for path in sorted((root / name).rglob("*.py"))),
    ]


def imported(tree: ast.AST, path: Path, root: Path) -> set[tuple[str, bool]]:
    """Return (top-level name, whether it is inside this package) of each import in a file."""
    here = path.relative_to(root).parent.parts
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name.split(".")[0], False) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(((node.module or "").split(".")[0], False))
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - (node.level - 1)]
            module = (*base, *(node.module or "").split(".")) if node.module else base
            names = [module[0]] if module else [alias.name for alias in node.names]
            found |= {(name, True) for name in names}
    return found


def layering_violations(root: Path) -> list[str]:
    bad = []
    for path in sources(root):
        parts = path.relative_to(root).parts
        room = parts[0] if len(parts) > 1 else ""
        for name, inside in imported(ast.parse(path.read_text()), path, root):
            if inside and room and name in FOLDERS and name != room and name not in MAY_IMPORT[room]:
                bad.append(f"{'/'.join(parts)} imports {name}/")
            if inside and room and name in ROOT_FILES:
                bad.append(f"{'/'.join(parts)} imports {name}")
            if not inside and name == "edgesmith":
                bad.append(f"{'/'.join(parts)} imports edgesmith by name: imports inside are relative")
            if not inside and name in PACKAGES and room not in PACKAGES[name]:
                bad.append(f"{'/'.join(parts)} imports {name}")
    return bad


def size_violations(root: Path) -> list[str]:
    bad = []
    for path in sources(root):
        text, name = path.read_text(), path.relative_to(root)
        if (lines := text.count("\n")) > LONGEST_FILE:
            bad.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (lines := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION:
                bad.append(f"{name}:{node.lineno}: {node.name} is {lines} lines")
    return bad


def test_imports_point_down():
    assert layering_violations(ROOT) == []


def test_files_and_functions_are_small():
    assert size_violations(ROOT) == []


PLANTED = {
    "runtime imports bench": ("runtime/x.py", "from ..bench import clock\n", layering_violations),
    "runtime imports bench as a name": ("runtime/x.py", "from .. import bench\n", layering_violations),
    "a deep file imports up": ("runtime/backends/x.py", "from ...export import parity\n", layering_violations),
    "bench imports the pipeline": ("bench/x.py", "from ..pipeline import run\n", layering_violations),
    "optimize imports torch": ("optimize/x.py", "def f():\n    import torch\n", layering_violations),
    "runtime imports onnx": ("runtime/x.py", "from onnx import helper\n", layering_violations),
    "the package by its name": ("models/x.py", "import edgesmith.runtime\n", layering_violations),
    "a long file": ("bench/x.py", "a = 1\n" * 301, size_violations),
    "a long function": ("bench/x.py", "def f():\n" + "    a = 1\n" * 50, size_violations),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(case, tmp_path):
    name, text, check = PLANTED[case]
    for folder in ("runtime/backends", *FOLDERS):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    assert check(tmp_path) == []
    (tmp_path / name).write_text(text)
    assert len(check(tmp_path)) == 1


HEAVY = ["torch", "onnx", "onnxruntime", "PIL", "rich", "click", "tensorrt_rtx_bindings", "openvino", "cryptography"]


def heavy_at_import(place: Path) -> str:
    """Return what of HEAVY is loaded after the runtime in a folder was imported, `load` looked up."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import runtime; runtime.load"
    code += "; print([m for m in sys.modules if m in sys.argv[2:]])"
    command = [sys.executable, "-I", "-c", code, str(place), *HEAVY]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_runtime_loads_nothing_heavy():
    assert heavy_at_import(ROOT) == "[]"


@pytest.mark.parametrize("file", ["session.py", "bundle.py", "preprocess.py"])
def test_a_planted_heavy_import_is_found(file, tmp_path):
    shutil.copytree(ROOT / "runtime", tmp_path / "runtime")
    text = (tmp_path / "runtime" / file).read_text()
    (tmp_path / "runtime" / file).write_text(text.replace("\nimport ", "\nimport click\nimport ", 1))
    assert heavy_at_import(tmp_path) == "['click']"


def imported_alone(place: Path) -> subprocess.CompletedProcess:
    """Import the modules of the runtime in a folder that holds nothing else."""
    names = ("session", "bundle", "datasets", "preprocess", "postprocess", "engines.build")
    code = f"import sys; sys.path.insert(0, {str(place)!r}); import {', '.join(f'runtime.{name}' for name in names)}"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)


def test_runtime_alone_still_imports(tmp_path):
    shutil.copytree(ROOT / "runtime", tmp_path / "alone" / "runtime")
    done = imported_alone(tmp_path / "alone")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", ["from ..models import catalog", "from .. import pipeline"])
def test_a_planted_import_of_another_room_is_found(text, tmp_path):
    shutil.copytree(ROOT / "runtime", tmp_path / "alone" / "runtime")
    file = tmp_path / "alone" / "runtime" / "datasets.py"
    file.write_text(file.read_text().replace("\nimport functools\n", f"\n{text}\nimport functools\n", 1))
    done = imported_alone(tmp_path / "alone")
    assert done.returncode == 1
    assert "Error" in done.stderr


BANNED = {
    ("runtime/x.py", "import torch"): 1, ("bench/x.py", "from onnx import helper"): 1, ("cli/__init__.py", "import onnx"): 1,
    ("runtime/x.py", "import onnx_graphsurgeon as gs"): 1,
    ("models/x.py", "import torch"): 0, ("export/x.py", "import onnx"): 0, ("runtime/x.py", "import json"): 0,
}  # fmt: skip


@pytest.mark.parametrize(("file", "text"), BANNED)
def test_ruff_too_finds_torch_and_onnx_where_they_are_banned(file, text):
    pytest.importorskip("ruff")
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--no-cache", "--stdin-filename", file, "-"]
    done = subprocess.run(command, input=text + "\n", capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == BANNED[file, text], done.stdout + done.stderr
    assert ("TID251" in done.stdout) is bool(done.returncode)
