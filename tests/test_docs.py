"""The README and the pages of docs/ are executed: blocks run, commands and options exist, links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from edgesmith.cli import COMMANDS, main
from support import pictures, tree_map
from support.bundles import colour_bundle, picture

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MAKEFILE = (ROOT / "Makefile").read_text()


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(page.read_text()) if name == language]


def commands(page: Path) -> list[list[str]]:
    """Every line of a block, and every `…` in the text, that calls edgesmith."""
    text = page.read_text()
    lines = [
        line for block in blocks(page, "") + blocks(page, "sh") + blocks(page, "bash") for line in block.splitlines()
    ]
    lines += re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    words = [shlex.split(line.split(" #")[0]) for line in lines if line.startswith("edgesmith ") and "'" not in line]
    return [[word for word in line[1:] if word != "…"] for line in words]


def problems_of(line: list[str]) -> str:
    """Say what is wrong with a command line of the docs; an empty string if nothing."""
    if not line or line[0].startswith("-"):
        return ""
    names = [name.strip(",|") for name in line if name.strip(",|")] if "|" in line else line[:1]
    if unknown := [name for name in names if name not in COMMANDS]:
        return f"unknown command {unknown[0]}"
    known = {"--help", "-h"}
    for parameter in main.get_command(click.Context(main), line[0]).params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    wrong = [word for word in line[1:] if word.startswith("-") and word.split("=")[0] not in known]
    return f"unknown option {wrong[0]}" if wrong else ""


SOURCES = [
    ROOT / "__init__.py",
    *(file for folder in tree_map.FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))),
]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# Files that are not the project's.
ANYBODYS = {"my_net.py", "file.py", "work.py", "numpy.py", "json.py", "FILE.py", "SCRIPT.py", "1/model.py"}
KEYS = {"edgesmith.spec", "edgesmith.digest", "edgesmith.zero_points"}  # of metadata in files
TOPS = "|".join((*tree_map.FOLDERS, "tests", "docs", "examples"))
# A path of the project, or any file of Python; a name of the package with dots; a module's name in it, in backticks.
PATH = re.compile(rf"(?<![\w./{{}}*<-])((?:{TOPS})/(?:[\w-]+/)*(?:[\w.-]+\.\w+)?|(?:\w+/)*\w+\.py)(?![\w*{{<…])")
DOTTED = re.compile(r"(?<![\w.@/:-])(edgesmith(?:\.[A-Za-z_]\w*)+)")
MEMBER = re.compile(r"`(\w+)\.([a-z]\w*)(?:\([^`]*)?`")
TEXTS: dict[str, str] = {}
for file in SOURCES:
    module = file.parent.name if file.stem == "__init__" else file.stem
    TEXTS[module] = TEXTS.get(module, "") + file.read_text()
SUFFIXES = {"py", "json", "html", "csv", "onnx", "toml", "zip"}


def exists(name: str, beside: Path) -> bool:
    """Whether a file or folder stands where a text says, from the text's own folder or one above it."""
    places = [place for place in (beside, *beside.parents) if place.is_relative_to(ROOT)]
    return name in ANYBODYS or any((place / name).exists() for place in places)


def defines(text: str, name: str) -> bool:
    """Whether a module's text defines, imports or lists a name."""
    return bool(
        re.search(rf'(?:def|class) {name}\b|^\s*{name}\b[^.(]*[:=]|import .*\b{name}\b|"{name}"', text, re.MULTILINE)
    )


def is_defined(dotted: str) -> bool:
    """Whether `edgesmith.a.b.name` leads to a module of the package, and to a name that its file holds."""
    place = ROOT
    for number, name in enumerate(parts := dotted.split(".")[1:]):
        if not (place / name).is_dir():
            file = place / f"{name}.py"
            rest = parts[number + 1 :] if file.is_file() else parts[number:]
            text = (file if file.is_file() else place / "__init__.py").read_text()
            return not rest or defines(text, rest[0])
        place /= name
    return True


def stale_names(text: str, beside: Path) -> list[str]:
    """Return the paths, modules and members that a text names and that are nowhere."""
    stale = [name for name in PATH.findall(text) if not exists(name, beside)]
    stale += [name for name in DOTTED.findall(text) if name not in KEYS and not is_defined(name)]
    members = [(stem, name) for stem, name in MEMBER.findall(text) if stem in TEXTS and name not in SUFFIXES]
    return stale + [f"{stem}.{name}" for stem, name in members if not defines(TEXTS[stem], name)]


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_path_and_module_of_the_docs_exists(page):
    text = page.read_text().split(tree_map.START)[0]
    recipes = re.findall(r"^# (\S+\.py)$", text, re.MULTILINE)  # files that the page has the reader make
    assert [name for name in stale_names(text, page.parent) if name not in recipes] == []


def test_each_path_and_module_of_comments_and_docstrings_exists():
    stale = {file.relative_to(ROOT).as_posix(): stale_names(file.read_text(), file.parent) for file in SOURCES}
    assert {file: names for file, names in stale.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "stale"),
    [
        ("see `runtime/model.py` and `optimize/passes/`, runtime/engines/devices.csv", []),
        ("see `runtime/session.py`", ["runtime/session.py"]),
        ("see `runtime/tune/`", ["runtime/tune/"]),
        ("see walk.py", ["walk.py"]),
        ("measure your own `work.py`", []),
        ("from edgesmith.runtime import load; edgesmith.runtime.model.load", []),
        ("from edgesmith.runtime.live import Pool", ["edgesmith.runtime.live"]),
        ("edgesmith.models.catalog.build", ["edgesmith.models.catalog.build"]),
        (
            "edgesmith.optimize.quantize.quantize, edgesmith.optimize.quantize.gains",
            ["edgesmith.optimize.quantize.gains"],
        ),
        ("`catalog.build_network(name)`, `np.clip`", []),
        ("`catalog.make(name)`", ["catalog.make"]),
    ],
)
def test_a_stale_name_is_found(text, stale):
    assert stale_names(text, ROOT) == stale


def test_the_map_of_the_architecture_is_the_tree():
    """Every folder and file of the package stands there with the first line of its docstring, and nothing else does."""
    written = (ROOT / tree_map.PAGE).read_text()
    assert written == tree_map.page(), "run `PYTHONPATH=tests python -m support.tree_map`"
    assert all(first for first in map(tree_map.first_line, SOURCES))


@pytest.mark.parametrize("change", ["a new file", "a new folder", "a file less", "another docstring"])
def test_a_map_that_is_not_the_tree_is_found(change, tmp_path):
    for folder in tree_map.FOLDERS:
        (tmp_path / folder / "deep").mkdir(parents=True)
        for name in ("__init__", "deep/__init__", "deep/a"):
            (tmp_path / folder / f"{name}.py").write_text('"""One."""\n')
    before = tree_map.tree_map(tmp_path)
    if change == "a new file":
        (tmp_path / "bench" / "b.py").write_text('"""Two."""\n')
    elif change == "a new folder":
        (tmp_path / "cli" / "new").mkdir()
        (tmp_path / "cli" / "new" / "__init__.py").write_text('"""Two."""\n')
    elif change == "a file less":
        (tmp_path / "runtime" / "deep" / "a.py").unlink()
    else:
        (tmp_path / "models" / "deep" / "__init__.py").write_text('"""Two."""\n')
    assert tree_map.tree_map(tmp_path) != before


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_command_of_the_docs_exists(page):
    assert {" ".join(line): why for line in commands(page) if (why := problems_of(line))} == {}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("exprt x", "unknown command exprt"),
        ("export x --colour red", "unknown option --colour"),
        ("export x --json", ""),
    ],
)
def test_a_wrong_command_in_the_docs_is_found(line, why):
    assert problems_of(line.split()) == why


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", BLOCK.sub("", page.read_text()))
    assert [link for link in links if not re.match(r"\w+:", link) and not (page.parent / link).exists()] == []


def test_each_make_target_of_the_docs_exists():
    named = {word for page in PAGES for word in re.findall(r"\bmake ([a-z][a-z-]+)\b", "\n".join(blocks(page, "")))}
    assert {"export", "test"} <= named
    assert {name for name in named if not re.search(rf"^{name}:", MAKEFILE, re.MULTILINE)} == set()


def test_the_variables_of_the_docs_are_those_of_the_makefile():
    rows = re.findall(r"^\| `([A-Z]+)` \| `([^`]+)` \|", (ROOT / "docs/export.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == ["MODEL", "WEIGHTS", "PRECISION", "TARGET"]
    for name, default in [*rows, ("DATA", ""), ("OUT", ""), ("ARGS", "")]:
        assert re.search(rf"^{name}[ ]*\?=[ ]*(.*)$", MAKEFILE, re.MULTILINE).group(1) == default, name


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    colour_bundle(tmp_path / "bundles" / "mobilenetv2")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), {"image": picture("green")})
    said = capsys.readouterr().out
    assert "green" in said
    assert "int8" in said


def test_the_readme_is_short():
    text = re.sub(r"<!-- photos.*/photos -->", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(text.splitlines()) <= 65  # and the table that `make bench-photos` writes


def test_the_picture_of_the_stages_is_that_of_the_code():
    assert (pictures.FOLDER / "stages.svg").read_text() == pictures.stages_svg()


def test_a_recording_shows_each_line_when_it_came():
    lines = [(1.0, "a & b"), (2.0, ""), (4.0, "end (4 s)")]
    svg = ElementTree.fromstring(pictures.recording_svg("edgesmith <x>", lines))
    texts = {node.text: node for node in svg.iter("{http://www.w3.org/2000/svg}text")}
    starts = [float(texts[name][0].get("keyTimes").split(";")[1]) for name in ("a & b", "end (4 s)")]
    assert starts[0] < starts[1] <= pictures.SHOWN_S / (pictures.SHOWN_S + pictures.PAUSE_S)
    assert "$ edgesmith <x>" in texts
    assert ElementTree.parse(pictures.FOLDER / "export.svg").getroot().get("viewBox")


@pytest.mark.parametrize("script", [".ci/run"])
def test_scripts_are_valid_bash(script):
    assert subprocess.run(["bash", "-n", ROOT / script]).returncode == 0


@pytest.mark.slow
def test_the_pages_of_the_api_are_made_without_a_warning(tmp_path):
    made = subprocess.run(
        [sys.executable, ROOT / "tests/support/api_docs.py", tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[-600:]
    assert (tmp_path / "edgesmith.html").is_file()
