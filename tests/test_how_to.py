"""The how-to pages are executed from top to bottom: their Python, and their commands as a user would type them."""

import re
import shlex
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgesmith.cli import main
from edgesmith.runtime.images import preprocess
from support.bundles import LABELS, SPEC, colour_bundle, colour_project, shaded

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
QUESTIONS = {"own-module", "own-onnx", "own-data", "calibrate", "deploy-to-an-orin", "read-the-report", "add-a-pass",
             "gate-my-ci", "from-python", "timm", "yolo-export", "ocr", "two-inputs", "unlabelled-data"}  # fmt: skip
SLOW = {"yolo-export", "ocr", "two-inputs", "unlabelled-data", "own-module"}
MAY_NOT_TELL = {"gate", "bench", "compare"}  # on a busy machine: exit code 3


def test_each_question_has_its_page():
    assert {page.stem for page in PAGES} == QUESTIONS


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what the pages name: a network, images by class, a bundle, batches."""
    monkeypatch.chdir(tmp_path)
    colour_bundle(tmp_path / "bundles" / "colours")
    colour_project(tmp_path)
    pictures = [shaded(colour, number) for colour in LABELS for number in range(20)]
    np.save(tmp_path / "batches.npy", preprocess.apply(pictures, SPEC)[:, None])
    return tmp_path


def steps(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(python|sh)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


TIMM = '''
"""What the page calls of timm."""
from torch import nn

def is_model(name):
    return name == "resnet10t"

def create_model(name, pretrained=False, **arguments):
    assert not pretrained, "a download"
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(8, 5))
    net.pretrained_cfg = {"input_size": (3, 176, 176), "interpolation": "bicubic", "crop_pct": 0.875,
                          "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return net
'''


def stand_in_timm(place, monkeypatch):
    """Put a package in place of timm, which the tests do not install."""
    (place / "timm.py").write_text(TIMM)
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "timm")


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page.stem in SLOW)) for page in PAGES],
    ids=lambda page: page.stem,
)  # fmt: skip
def test_the_page_runs(page, place, monkeypatch):
    stand_in_timm(place, monkeypatch)
    order = steps(page)
    assert order
    for name, text in re.findall(r"`(\w+\.py)`:\n\n```py\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        Path(name).write_text(text)
    monkeypatch.syspath_prepend(place)
    if page.stem == "own-onnx":  # the page writes the spec last, because most files have one
        order = [order[-1], *order[:-1]]
    names: dict = {}
    for language, text in order:
        if language == "python":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own, of its exporter by tracing
                exec(compile(text, page.name, "exec"), names)
            continue
        for line in text.splitlines():
            line = line.replace("--max-seconds 20", "--max-seconds 4")  # here nobody waits for the answer
            done = CliRunner().invoke(main, shlex.split(line)[1:])
            allowed = (0, 3) if line.split()[1] in MAY_NOT_TELL else (0,)
            assert done.exit_code in allowed, (line, done.output, done.stderr)
