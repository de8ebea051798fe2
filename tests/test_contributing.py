"""The recipes of CONTRIBUTING.md: their files are written into a copy of the tree, and their commands run there."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from edgesmith.bench import metrics, suite
from edgesmith.bench.measure.context import MetricContext
from edgesmith.bench.measure.interleave import Timings
from edgesmith.cli import main
from edgesmith.models import catalog, complexity, zoo
from edgesmith.optimize import passes, recipes
from edgesmith.runtime import backends
from support.bundles import colour_bundle, colour_net, golden_inputs, picture
from support.contracts import backend_problems, metric_problems, pass_problems, planted
from support.graphs import model
from support.tree_map import FOLDERS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = dict(re.findall(r"^## Add a (.*?)\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL))
FILE = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ADDITION = re.compile(r'[Aa]dd `("\w+")` to (?:the backends of `("\w+")` in )?`(\w+)` (?:in|of)\s+`(\S+\.py)`')


def files(recipe: str) -> list[tuple[str, str]]:
    """Return the path and the text of each file that a recipe writes."""
    return FILE.findall(SECTIONS[recipe])


def commands(recipe: str) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", SECTIONS[recipe], re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def add(root: Path, name: str, key: str, table: str, file: str) -> None:
    """Put a name in front of a tuple's others, as the page says."""
    head, rest = (root / file).read_text().split(f"\n{table} = ", 1)
    before, after = rest.split(f"{key}: (" if key else "(", 1)
    opening = f"{key}: (" if key else "("
    (root / file).write_text(f"{head}\n{table} = {before}{opening}{name}, {after}")


def follow(recipe: str, root: Path) -> None:
    """Do what a recipe says in a copy of the package."""
    for file, text in files(recipe):
        assert not (root / file).exists()
        (root / file).write_text(text)
    for addition in ADDITION.findall(SECTIONS[recipe]):
        add(root, *addition)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package in which every recipe was followed."""
    root = tmp_path_factory.mktemp("copy") / "edgesmith"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "__main__.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    for recipe in SECTIONS:
        follow(recipe, root)
    return root


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what the commands name."""
    monkeypatch.chdir(tmp_path)
    colour_bundle(tmp_path / "bundles" / "colours")
    Image.fromarray(picture("green")).save(tmp_path / "photo.png")
    text = "(float[1,4] x) => (float[1,4] y) { a = Neg(x) b = Neg(a) y = Relu(b) }"
    onnx.save(model(text, {}), tmp_path / "negs.onnx")
    return tmp_path


SHOWN = {"network": "tinynet", "graph pass": "merge_negs", "backend": "green", "metric": "iqr_ratio"}
RUN_ELSEWHERE = ("target", "task")  # tests/test_targets.py and tests/test_tasks.py run these files


def shown(recipe: str, run) -> str:
    """Run a recipe's commands and return what they print."""
    said = ""
    for line in commands(recipe):
        code, text = run(line)
        assert code == 0, text
        said += text
    return said + "".join(path.read_text() for path in sorted(Path("results").glob("*.json")))


@pytest.mark.parametrize("recipe", SHOWN)
def test_a_recipe_works_in_a_copy_of_the_tree(recipe, copy, place, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(copy.parent))

    def run(line):
        done = subprocess.run([sys.executable, "-m", "edgesmith", *line], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert SHOWN[recipe] in shown(recipe, run)


@pytest.mark.parametrize("recipe", SHOWN)
def test_without_its_file_a_recipe_does_not_work(recipe, place):
    def run(line):
        done = CliRunner().invoke(main, line)
        return done.exit_code, done.output

    try:
        text = shown(recipe, run)
    except AssertionError:
        return
    assert recipe == "graph pass"  # the command works without the pass too
    assert SHOWN[recipe] not in text


def test_each_recipe_has_a_file_and_a_command_and_keeps_the_style(copy):
    assert set(SECTIONS) == {*SHOWN, *RUN_ELSEWHERE}
    written = [copy / file for recipe in SHOWN for file, _ in files(recipe)]
    assert len(written) == len(SHOWN)
    assert all(commands(recipe) for recipe in SHOWN)
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, *written], cwd=copy, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def plugin(recipe: str) -> tuple[str, str]:
    ((file, text),) = files(recipe)
    return Path(file).stem, text


def test_the_network_has_the_figures_of_its_table(tmp_path, monkeypatch):
    name, text = plugin("network")
    cached = (catalog._entries, catalog._index, catalog._tables)
    with planted(zoo, tmp_path / "p", text, name), monkeypatch.context() as patch:
        patch.setattr(catalog, "_FOLDER", tmp_path / "p")
        for one in cached:
            one.cache_clear()
        table, figures = complexity.describe_network(name), catalog.find_network(name).figures
    for one in cached:
        one.cache_clear()
    assert (table.params, table.macs) == (figures.params, figures.macs)


def test_the_pass_keeps_its_contract(tmp_path, monkeypatch):
    name, text = plugin("graph pass")
    monkeypatch.setattr(recipes, "GENERIC", (*recipes.GENERIC, name))
    with planted(passes, tmp_path / "p", text, name):
        assert pass_problems(name, tmp_path) == []


def test_the_backend_keeps_its_contract(tmp_path):
    name, text = plugin("backend")
    answer = 4.0 * golden_inputs()["input"].astype(np.float64).mean(axis=(2, 3))
    with planted(backends, tmp_path / "p", text, name):
        assert backend_problems(name, colour_net(tmp_path / "net.onnx"), answer, computes=True) == []


@pytest.mark.parametrize("samples", [[], [[1.0, 2.0, 3.0], [2.0]]])
def test_the_metric_keeps_its_contract(samples, tmp_path):
    name, text = plugin("metric")
    one = suite.contexts(colour_bundle(tmp_path / "b").folder, precisions=["fp32"])[0]
    with planted(metrics, tmp_path / "p", text, name):
        assert metric_problems(name, MetricContext(one.subject, one.target, one.artifact, Timings(samples))) == []
