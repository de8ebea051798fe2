"""The rules of docs/architecture.md, read off the source: layering, circles, sizes, names; each rule can fail."""

import ast
import graphlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cli", "export", "optimize", "models", "bench", "runtime")
MAY_IMPORT = {
    "runtime": set(),
    "models": {"runtime"},
    "optimize": {"runtime"},
    "bench": {"runtime"},
    "export": {"models", "optimize", "bench", "runtime"},
    "cli": {"export", "models", "optimize", "bench", "runtime"},
    "": {"cli", "export", "models", "optimize", "bench", "runtime"},
}
PACKAGES = {
    "torch": {"models", "export"}, "onnx": {"export", "optimize"}, "onnx_graphsurgeon": {"export", "optimize"},
    "click": {"cli"}, "rich": {"cli", "runtime"},
}  # fmt: skip
LONGEST_FUNCTION, LONGEST_FILE = 50, 300
# The package's own `__init__` names public functions by their modules' names; it imports none of them itself.
FRONT_DOOR = "__init__.py"


def sources(root: Path = ROOT) -> list[Path]:
    return [*sorted(root.glob("*.py")), *(path for room in ROOMS for path in sorted((root / room).rglob("*.py")))]


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_inside(path: Path, root: Path, modules: set[str]) -> set[str]:
    """Return the modules of this package that a file imports: at the top, lazily, or for typing alone."""
    here = path.relative_to(root).parent.parts
    targets = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - (node.level - 1)]
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            names = [f"{module}.{alias.name}".strip(".") for alias in node.names]
            targets |= {name if name in modules else module for name in names}
    return targets & modules


def imports_outside(path: Path) -> set[str]:
    """Return the top-level names of other packages that a file imports, `need("torch")` among them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in NEEDS:
            names |= {word.value for word in node.args[:1] if isinstance(word, ast.Constant)}
    return {str(name).split(".")[0] for name in names}


NEEDS = ("need", "import_module", "__import__")


def layering_violations(root: Path) -> list[str]:
    bad = []
    modules = {module_name(path, root) for path in sources(root)}
    for path in sources(root):
        name = path.relative_to(root)
        room = name.parts[0] if len(name.parts) > 1 else ""
        for target in imports_inside(path, root, modules):
            other = target.split(".")[0]
            if target and other != room and other not in MAY_IMPORT[room]:
                bad.append(f"{name} imports {target}")
        for package in imports_outside(path):
            if package == "edgesmith":
                bad.append(f"{name} imports edgesmith by name: imports inside are relative")
            if package in PACKAGES and room not in PACKAGES[package]:
                bad.append(f"{name} imports {package}")
    return bad


def circle_violations(root: Path) -> list[str]:
    """Return the first circle of files that import each other, lazy and typing imports counted."""
    modules = {module_name(path, root): path for path in sources(root)}
    graph = {name: imports_inside(path, root, set(modules)) - {name, ""} for name, path in modules.items() if name}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


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


def name_violations(root: Path) -> list[str]:
    """Return class names that stand for two classes: a search for one finds the other."""
    places: dict[str, list[str]] = {}
    for path in sources(root):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and "zoo" not in path.parts:
                places.setdefault(node.name, []).append(str(path.relative_to(root)))
    return [f"{name}: {', '.join(files)}" for name, files in places.items() if len(files) > 1]


PARTICIPLES = {
    "found", "made", "held", "told", "said", "given", "taken", "carried", "tried", "lifted", "opened", "computed",
    "drawn", "asked", "built", "listed", "picked", "named", "joined", "counted", "placed", "damped", "declared",
    "turned", "widened", "added",
}  # fmt: skip


def variable_violations(root: Path) -> list[str]:
    """Return variables and arguments whose name is a participle: it says when a value came, not what it is.

    Fields of classes are left out: reports and JSON files show them.
    """
    bad = []
    for path in sources(root):
        name = path.relative_to(root).as_posix()
        tree = ast.parse(path.read_text())
        fields = {id(item.target) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
                  for item in node.body if isinstance(item, ast.AnnAssign)}  # fmt: skip
        for node in ast.walk(tree):
            stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id
            if id(node) not in fields and (stored or (isinstance(node, ast.arg) and node.arg)) in PARTICIPLES:
                bad.append(f"{name}:{node.lineno}: {stored or node.arg}")
    return bad


RULES = [layering_violations, circle_violations, size_violations, name_violations, variable_violations]


@pytest.mark.parametrize("rule", RULES)
def test_the_tree_keeps_the_rule(rule):
    assert rule(ROOT) == []


PLANTED = {
    "runtime imports bench": ({"runtime/x.py": "from ..bench import a\n"}, layering_violations),
    "runtime imports bench for typing": (
        {"runtime/x.py": "if TYPE_CHECKING:\n    from ..bench.a import b\n"}, layering_violations,
    ),
    "a deep file imports up": ({"runtime/backends/x.py": "from ...export import a\n"}, layering_violations),
    "bench imports the flow": ({"bench/x.py": "def f():\n    from ..export.a import run\n"}, layering_violations),
    "a room imports a command": ({"bench/x.py": "from ..cli import a\n"}, layering_violations),
    "optimize imports models": ({"optimize/x.py": "from ..models import a\n"}, layering_violations),
    "optimize imports torch": ({"optimize/x.py": "def f():\n    import torch\n"}, layering_violations),
    "bench needs torch": ({"bench/x.py": 'def f():\n    return need("torch.nn")\n'}, layering_violations),
    "bench needs onnx": ({"bench/x.py": 'def f():\n    return packages.need("onnx")\n'}, layering_violations),
    "runtime imports onnx": ({"runtime/x.py": "from onnx import helper\n"}, layering_violations),
    "optimize imports click": ({"optimize/x.py": "import click\n"}, layering_violations),
    "the package by its name": ({"models/x.py": "import edgesmith.runtime\n"}, layering_violations),
    "a circle of two": ({"bench/x.py": "from . import y\n", "bench/y.py": "from .x import a\n"}, circle_violations),
    "a circle of three, one lazy, one for typing": (
        {
            "bench/x.py": "from . import y\n", "bench/y.py": "def f():\n    from .z import a\n",
            "bench/z.py": "if TYPE_CHECKING:\n    from .x import b\n",
        },
        circle_violations,
    ),
    "a long file": ({"bench/x.py": "a = 1\n" * 301}, size_violations),
    "a long function": ({"bench/x.py": "def f():\n" + "    a = 1\n" * 50}, size_violations),
    "a participle as a variable": ({"bench/x.py": "def f():\n    found = 1\n    return found\n"}, variable_violations),
    "a participle as an argument": ({"cli/x.py": "def f(told):\n    return 1\n"}, variable_violations),
    "two classes of one name": ({"bench/x.py": "class A: ...\n", "models/y.py": "class A: ...\n"}, name_violations),
}  # fmt: skip


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(case, tmp_path):
    files, rule = PLANTED[case]
    for folder in ("runtime/backends", *ROOMS):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "a.py").write_text("b = 1\n")
    assert rule(tmp_path) == []
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert len(rule(tmp_path)) == 1


def test_the_packages_of_pyproject_are_the_folders():
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(r'^    "edgesmith\.([\w.]+)",$', text, re.MULTILINE)
    folders = {path.relative_to(ROOT).parent.as_posix().replace("/", ".") for path in sources() if path.parent != ROOT}
    assert listed == sorted(folders)
    assert all((ROOT / folder.replace(".", "/") / "__init__.py").is_file() for folder in folders)


def test_the_root_holds_nothing_but_the_front_door():
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


HEAVY = ["torch", "onnx", "onnxruntime", "PIL", "rich", "click", "tensorrt_rtx_bindings", "openvino", "cryptography"]


def heavy_at_import(place: Path) -> str:
    """Return what of HEAVY is loaded after the runtime in a folder was imported, `load` looked up."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import runtime; runtime.load"
    code += "; print([m for m in sys.modules if m in sys.argv[2:]])"
    command = [sys.executable, "-I", "-c", code, str(place), *HEAVY]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_runtime_loads_nothing_heavy():
    assert heavy_at_import(ROOT) == "[]"


@pytest.mark.parametrize("file", ["model.py", "bundle/bundle.py", "images/preprocess.py"])
def test_a_planted_heavy_import_is_found(file, tmp_path):
    shutil.copytree(ROOT / "runtime", tmp_path / "runtime")
    text = (tmp_path / "runtime" / file).read_text()
    (tmp_path / "runtime" / file).write_text(text.replace("\nimport ", "\nimport click\nimport ", 1))
    assert heavy_at_import(tmp_path) == "['click']"


def imported_alone(place: Path) -> subprocess.CompletedProcess:
    """Import the modules of the runtime in a folder that holds nothing else."""
    names = ("model", "bundle.bundle", "datasets", "images.preprocess", "images.postprocess", "engines.build")
    code = f"import sys; sys.path.insert(0, {str(place)!r}); import {', '.join(f'runtime.{name}' for name in names)}"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)


def test_runtime_alone_still_imports(tmp_path):
    shutil.copytree(ROOT / "runtime", tmp_path / "alone" / "runtime")
    done = imported_alone(tmp_path / "alone")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", ["from ...models import catalog", "from ... import export"])
def test_a_planted_import_of_another_room_is_found(text, tmp_path):
    shutil.copytree(ROOT / "runtime", tmp_path / "alone" / "runtime")
    file = tmp_path / "alone" / "runtime" / "datasets" / "__init__.py"
    file.write_text(file.read_text().replace("\nimport functools\n", f"\n{text}\nimport functools\n", 1))
    done = imported_alone(tmp_path / "alone")
    assert done.returncode == 1
    assert "Error" in done.stderr


BANNED = {
    ("runtime/x.py", "import torch"): 1, ("bench/x.py", "from onnx import helper"): 1,
    ("cli/x.py", "import onnx"): 1, ("runtime/x.py", "import onnx_graphsurgeon as gs"): 1,
    ("models/x.py", "import torch"): 0, ("export/x.py", "import onnx"): 0, ("runtime/x.py", "import json"): 0,
}  # fmt: skip


@pytest.mark.parametrize(("file", "text"), BANNED)
def test_ruff_too_finds_torch_and_onnx_where_they_are_banned(file, text):
    pytest.importorskip("ruff")
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--no-cache", "--stdin-filename", file, "-"]
    done = subprocess.run(command, input=text + "\n", capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == BANNED[file, text], done.stdout + done.stderr
    assert ("TID251" in done.stdout) is bool(done.returncode)
