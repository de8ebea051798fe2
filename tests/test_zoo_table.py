"""The command behind `make zoo-table`: rows that are kept, taken up again, and say what failed."""

import json

import pytest
from click.testing import CliRunner
from experiments import zoo_table

DONE = {
    "network": "resnet18", "stage": "int8", "done": True, "seconds": 60.0, "params": 11689512, "macs": 1814073344,
    "top1": 69.758, "stages": {"export": 3.21}, "parity": 2.5e-7, "nodes": [120, 49], "ort_p50_ms": 40.04,
    "fp16": {"8.6": "built", "8.9": "built"}, "int8": {"8.6": "failed: it did not", "8.9": "failed: it did not"},
}  # fmt: skip


def test_the_table_says_what_the_rows_say(tmp_path):
    broken = {"network": "vgg16", "stage": "export", "done": True, "failed": "export: no end after 9 s", "seconds": 9.0}
    for row in (DONE, broken):
        (tmp_path / f"{row['network']}.json").write_text(json.dumps(row))
    lines = zoo_table.markdown(tmp_path).splitlines()
    assert "2 networks with random weights, 1 minutes of one thread in all" in lines[0]
    cells = "| resnet18 | 11.69 | 1814 | 30.2 | 3.2 | 120 | 49 | 2e-07 | 2 of 2 | 0 of 2 | 40.0 | 60 |"
    assert cells in lines
    assert "- resnet18: int8 for SM 8.6, 8.9: failed: it did not" in lines
    assert "- vgg16: export: no end after 9 s" in lines


def test_what_takes_too_long_is_ended_and_what_is_done_is_not_done_again(tmp_path):
    words = ["LeNet-5", "--out", str(tmp_path), "--timeout", "1"]
    first, second = (CliRunner().invoke(zoo_table.main, words, catch_exceptions=False) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "lenet5: no end after 1 s in" in first.stderr
    assert "lenet5: was done" in second.stderr
    row = json.loads((tmp_path / "lenet5.json").read_text())
    assert (row["done"], row["failed"].split(": ")[1]) == (True, "no end after 1 s")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lenet5.json", "zoo.md"]


@pytest.mark.slow
def test_a_small_network_fills_its_row(tmp_path):
    seen = []
    row = zoo_table.measure("lenet5", (), tmp_path, seen.append)
    assert (row["params"], row["nodes"][0] >= row["nodes"][1], row["parity"] < 1e-5) == (61706, True, True)
    assert row["ort_p50_ms"] > 0
    assert [one["stage"] for one in seen[::2]] == ["build", "export", "parity", "passes", "latency", "fp16", "int8"]
