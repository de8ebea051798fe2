"""`edgesmith describe`: a network and the file exported from it give one table; both from the command line."""

import csv
import io
import json

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from edgesmith.cli import main
from edgesmith.export.to_onnx import export
from edgesmith.models import catalog
from edgesmith.models import complexity as of_module
from edgesmith.optimize.graph import complexity as of_onnx
from edgesmith.runtime.spec import ModelSpec, Preprocess

torch.set_num_threads(1)


def call(*words):
    return CliRunner().invoke(main, ["describe", *map(str, words)])


def rows(report):
    kinds = ("conv", "deconv", "linear", "pool", "concat")
    keys = ("kind", "output", "kernel", "stride", "pad", "groups", "macs", "receptive_field", "effective_stride")
    return [
        tuple(getattr(layer, key) for key in (*keys, "effective_padding"))
        for layer in report.layers
        if layer.kind in kinds
    ]


# Each is there for something that the two readers see differently: groups, concat, shuffles, transposed convolution,
# auxiliary heads, one or three dimensions.
NAMES = ("lenet5", "squeezenet1_1", "mobilenetv1_0.25", "shufflenetv2_x0_5", "unet_small", "tdnn", "conv3d")


WHEN = {"lenet5": (), "squeezenet1_1": pytest.mark.nightly, "shufflenetv2_x0_5": pytest.mark.nightly}  # else slow


@pytest.mark.parametrize("name", [pytest.param(name, marks=WHEN.get(name, pytest.mark.slow)) for name in NAMES])
def test_the_file_s_table_is_the_network_s(name, tmp_path):
    entry = catalog.find_network(name)
    spec = catalog.network_spec(name)
    path = export(catalog.build_network(name, entry.classes), spec, tmp_path / "m.onnx")
    module, file = of_module.describe_network(name), of_onnx.describe(path)
    assert rows(module) == rows(file)
    assert (module.macs, module.params) == (file.macs, file.params)
    assert module.peak_bytes == pytest.approx(file.peak_bytes, rel=0.05)


class Foreign(nn.Module):
    """Nothing of ours: functional calls, a branch, a layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.conv(x))
        x = nn.functional.max_pool2d(self.conv(x) + x, 2)
        return self.fc(x.mean((2, 3)))


def test_any_module_and_its_file_agree(tmp_path):
    spec = ModelSpec("foreign", (4, 8, 8), 3, preprocess=Preprocess(crop=(8, 8), resize=0))
    path = export(Foreign(), spec, tmp_path / "foreign.onnx")
    module, file = of_module.analyse_module(Foreign(), (4, 8, 8)), of_onnx.describe(path)
    assert rows(module) == rows(file)
    assert (module.macs, module.params) == (file.macs, file.params) == (2 * 64 * 4 * 4 * 9 + 12, 4 * 4 * 9 + 4 + 15)
    done = call(path)
    assert done.exit_code == 0, done.output
    assert "foreign.onnx, input 4x8x8" in done.stdout
    assert json.loads(call(path, "--json").stdout)["macs"] == file.macs


def test_the_table_of_the_lecture_from_the_command_line():
    done = call("alexnet_modified")
    line = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["features.0"])
    assert " ".join(line) == "features.0 conv 3x227x227 64 11 4 2 64x56x56 784 23.3 72.9 11 4 2 48.1"
    assert "parameters 61,100,840; MACs 7" in done.stdout
    assert "MB at once (best order)" in done.stdout


def test_csv_and_json_hold_every_layer():
    found = json.loads(call("lenet5", "--json").stdout)
    table = list(csv.DictReader(io.StringIO(call("lenet5", "--csv").stdout)))
    assert [row["name"] for row in table] == [layer["name"] for layer in found["layers"]]
    assert sum(int(row["macs"]) for row in table) == found["macs"]
    wanted = {"receptive_field", "effective_stride", "effective_padding", "intensity", "memory_bytes", "params"}
    assert wanted <= set(table[0])


BAD = {
    "no such network": (["alexnot"], "unknown model 'alexnot'; do: did you mean 'alexnet'"),
    "no such file": (["nowhere.onnx"], "cannot read model nowhere.onnx; got no such file"),
    "no ONNX": (["README.md"], "README.md is not an ONNX file"),
    "a size for a file": (["README.md", "--side", "32"], "an ONNX file defines its own shapes"),
    "a size for a sound": (["tdnn", "--side", "32"], "tdnn takes no image"),
    "a size that is too small": (["alexnet", "--side", "8"], "alexnet does not run on (3, 8, 8)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_described_is_one_line(case, tmp_path, monkeypatch):
    words, message = BAD[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("hello")
    done = call(*words)
    assert done.exit_code != 0
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
