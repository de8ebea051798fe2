"""The README and the pages of docs/ are executed: blocks run, commands and options exist, links lead somewhere."""

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from edgesmith.cli import COMMANDS, main
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


def test_the_variables_of_the_readme_are_those_of_the_makefile():
    rows = re.findall(r"^\| `([A-Z]+)` \| `([^`]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 6
    for name, default in rows:
        value = re.search(rf"^{name}\s*\?=\s*(\S+)", MAKEFILE, re.MULTILINE).group(1)
        assert value.replace("$(MODEL)", "MODEL") == default, name


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    colour_bundle(tmp_path / "bundles" / "mobilenetv2")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), {"image": picture("green")})
    said = capsys.readouterr().out
    assert "green" in said
    assert "int8" in said


@pytest.mark.parametrize("script", [".ci/run"])
def test_scripts_are_valid_bash(script):
    assert subprocess.run(["bash", "-n", ROOT / script]).returncode == 0
