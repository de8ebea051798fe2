"""The runtime's pages: their Python runs, their links lead somewhere, and their Dockerfiles are sound."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from support.bundles import colour_bundle, picture

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "runtime.md", DOCS / "bundle.md", DOCS / "data.md", *sorted((DOCS / "deploy").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_python_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    colour_bundle(tmp_path / "bundles" / "colours")
    Image.fromarray(picture("green")).save(tmp_path / "photo.png")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block, "block", "exec"), {})
    assert said.getvalue() or "print" not in block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


INSTRUCTIONS = {"FROM", "ARG", "RUN", "COPY", "USER", "ENV", "ENTRYPOINT", "CMD", "SHELL", "WORKDIR"}


def faults(text: str) -> list[str]:
    """Return what is wrong with a Dockerfile, by a few of the rules that hadolint has."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    lines = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    names = [line[0] for line in lines]
    found = [f"unknown instruction {name}" for name in names if name not in INSTRUCTIONS]
    found += ["does not begin with ARG or FROM"] if names[0] not in ("ARG", "FROM") else []
    found += ["has no FROM"] if "FROM" not in names else []
    found += ["an instruction without arguments"] if any(len(line) == 1 for line in lines) else []
    for name, rest in (line for line in lines if len(line) == 2):
        found += ["a moving tag"] if name == "FROM" and rest.endswith(":latest") else []
        if name == "RUN" and "apt-get install" in rest:
            wanted = ("apt-get update", "--no-install-recommends", "rm -rf /var/lib/apt/lists/*", " -y ")
            found += [f"apt without {one.strip()}" for one in wanted if one not in rest]
        found += ["pip keeps its cache"] if "pip install" in rest and "--no-cache-dir" not in rest else []
        found += ["a shell form"] if name in ("ENTRYPOINT", "CMD") and not rest.startswith("[") else []
        extras = re.findall(r"/src\[([^\]]*)\]", rest) if name == "RUN" else []
        found += ["cannot verify signatures"] if any("sign" not in one.split(",") for one in extras) else []
    users = [rest for name, rest in (line for line in lines if len(line) == 2) if name == "USER"]
    found += ["runs as root"] if not users or users[-1] in ("root", "0") else []
    return found


@pytest.mark.parametrize("path", sorted((DOCS / "deploy").glob("Dockerfile.*")), ids=lambda path: path.name)
def test_a_dockerfile_has_no_faults(path):
    assert faults(path.read_text()) == []


GOOD = 'ARG BASE\nFROM ${BASE}\nRUN pip install --no-cache-dir x\nUSER edge\nCMD ["x"]\n'
FAULTY = {
    "unknown instruction": GOOD + "RUNN x\n",
    "root": GOOD.replace("USER edge\n", ""),
    "a moving tag": GOOD.replace("${BASE}", "x:latest"),
    "apt": GOOD.replace("pip install --no-cache-dir x", "apt-get install x"),
    "cache": GOOD.replace(" --no-cache-dir", ""),
    "signatures": GOOD.replace("cache-dir x", 'cache-dir "/src[ort]"'),
    "shell": GOOD.replace('["x"]', "x"),
    "no FROM": GOOD.replace("FROM ${BASE}\n", ""),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_fault_is_found(case):
    assert faults(GOOD) == []
    assert faults(FAULTY[case])


@pytest.mark.parametrize("path", sorted((DOCS / "deploy").glob("Dockerfile.*")), ids=lambda path: path.name)
def test_an_image_verifies_signatures_and_remembers_versions(path):
    """The package with its signing extra, folders of the user for caches and versions, and how to name the key."""
    text = path.read_text()
    assert re.search(r'pip install [^\n]*"/src\[[^\]]*\bsign\b[^\]]*\]"', text)
    (user,) = re.findall(r"useradd .* (\w+) \\\n", text)
    variables = dict(re.findall(r"(EDGESMITH_\w+)=(\S+)", text.split("\nENV ")[1].split("\n")[0]))
    assert set(variables) == {"EDGESMITH_CACHE", "EDGESMITH_STATE"}
    assert f"install -d -o {user} -g {user} -m 700 {' '.join(sorted(variables.values()))}" in text
    assert "EDGESMITH_TRUSTED_KEYS=/etc/edgesmith/release.pub" in text
