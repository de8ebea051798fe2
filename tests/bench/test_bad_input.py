"""What must not be compared, cannot be told or makes no sense, each from the command line."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgesmith.bench.report import view
from edgesmith.bench.result import VERSION, write_run
from edgesmith.cli.bench import bench_command
from edgesmith.cli.compare import compare_command, report_command
from edgesmith.cli.gate import gate_command
from support.results import run

WORK = "def setup():\n    return lambda: sum(range(2000))"
RESTLESS = """
import os, time

def setup():
    us = 300 + 4 * os.urandom(1)[0]
    def call():
        stop = time.perf_counter_ns() + 1000 * us
        while time.perf_counter_ns() < stop:
            pass
    return call
"""


def elsewhere(made):
    return dataclasses.replace(made, environment=dataclasses.replace(made.environment, cpu="another one"))


def compared(tmp_path, base, new, *words):
    paths = [str(write_run(one, tmp_path / f"{name}.json")) for name, one in (("base", base), ("new", new))]
    return CliRunner().invoke(compare_command, [*paths, *words])


def test_two_machines_are_refused_or_marked(tmp_path):
    refused = compared(tmp_path, run(), elsewhere(run(seed=9)))
    assert refused.exit_code not in (0, 3)
    assert "the results come from different machines; got cpu:" in refused.stderr
    marked = compared(tmp_path, run(), elsewhere(run(seed=9)), "--other-machine", "--json")
    assert all("different machines: this is weak evidence" in one["why"] for one in json.loads(marked.stdout))


def test_two_models_are_refused(tmp_path):
    done = compared(tmp_path, run(names=("resnet50",)), run(names=("mobilenetv2",)))
    assert done.exit_code not in (0, 3)
    assert "no subject in common" in done.stderr


def test_a_newer_format_is_refused(tmp_path):
    path = write_run(run(), tmp_path / "new.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": VERSION + 1}))
    for command, words in ((compare_command, [str(path), str(path)]), (report_command, [str(path)])):
        done = CliRunner().invoke(command, words)
        assert done.exit_code not in (0, 3)
        assert f"version {VERSION + 1}; expected" in done.stderr


def test_a_report_marks_what_must_not_be_compared():
    changes = view.page_data([run(), elsewhere(run(seed=9))])["changes"]
    assert [one["answer"] for one in changes] == ["cannot tell"]
    assert "different machines" in changes[0]["why"]


def test_a_machine_too_noisy_to_tell_exits_3(tmp_path):
    """Every process has a speed of its own, from 0.3 to 1.3 ms: no honest answer can be given in a few pairs."""
    for name in ("base", "new"):
        (tmp_path / f"{name}.py").write_text(RESTLESS)
    words = [str(tmp_path / "new.py"), "--baseline", str(tmp_path / "base.py"), "--max-seconds", "2"]
    done = CliRunner().invoke(gate_command, words)
    assert done.exit_code == 3, done.output
    assert "cannot tell" in done.output
    assert "stop other work" in " ".join(done.output.split())


def test_a_crash_and_a_good_one_in_one_bench(tmp_path):
    (tmp_path / "bad.py").write_text("import os\nos.abort()")
    (tmp_path / "good.py").write_text(WORK)
    words = [str(tmp_path / "bad.py"), str(tmp_path / "good.py"), "--metrics", "latency", "--processes", "1",
             "--seconds", "0.1", "--out", str(tmp_path / "x.json"), "--json"]  # fmt: skip
    done = CliRunner().invoke(bench_command, words)
    bad, good = json.loads(done.stdout)["results"]
    assert "got signal 6" in bad["readings"]["latency"]["missing"]
    assert good["readings"]["latency"]["values"]["p50_s"] > 0


def test_a_full_disk_does_not_take_the_figures_with_it(tmp_path, monkeypatch):
    (tmp_path / "good.py").write_text(WORK)

    def full(path, text, *rest, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_text", full)
    words = [str(tmp_path / "good.py"), "--metrics", "latency", "--processes", "1", "--seconds", "0.1",
             "--out", str(tmp_path / "x.json"), "--json"]  # fmt: skip
    done = CliRunner().invoke(bench_command, words)
    assert done.exit_code not in (0, 3)
    assert "No space left" in done.stderr
    assert json.loads(done.stdout)["results"][0]["readings"]["latency"]["values"]["p50_s"] > 0
    assert not (tmp_path / "x.json").exists()


SENSELESS = (("--processes", "0"), ("--seconds", "-1"), ("--threads", "-2"), ("--batch", "0"))


@pytest.mark.parametrize("words", SENSELESS)
def test_senseless_numbers_are_wrong_use(words, tmp_path):
    (tmp_path / "good.py").write_text(WORK)
    done = CliRunner().invoke(bench_command, [str(tmp_path / "good.py"), *words, "--out", str(tmp_path / "x.json")])
    assert done.exit_code == 2
    assert "not valid" in done.stderr


def test_the_long_table_takes_no_paths(tmp_path):
    done = CliRunner().invoke(bench_command, [str(tmp_path / "a.onnx"), "--all"])
    assert done.exit_code == 2
    assert "takes no path and no other option" in done.stderr
