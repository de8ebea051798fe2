"""`edgesmith sweep` with networks by name, at several resolutions."""

import json

import pytest
from click.testing import CliRunner

from edgesmith.cli import _sweep_targets, main
from edgesmith.runtime import bundle
from edgesmith.runtime.errors import EdgesmithError, UsageError


def test_what_exists_stays_what_it_is(tmp_path):
    given = (str(tmp_path / "a.onnx"), "nowhere/bundle", "net.onnx", str(tmp_path))
    assert _sweep_targets.sweep_targets(given, "", tmp_path) == list(given)


@pytest.mark.parametrize(
    ("paths", "resolutions", "said"),
    [
        (("net.onnx",), "160", "needs networks given by name"),
        (("mobilenetv2",), "160,big", "a resolution is not valid; got 'big'"),
        (("mobilenetv2",), "7", "a resolution is not valid"),
        (("mobilenetv9",), "160", "mobilenetv9"),
        (("tdnn",), "160", "takes no images"),
        (("lenet5",), "48", "takes images of one size"),
        (("crnn",), "48", "cannot compute an input of"),
    ],
)
def test_what_makes_no_sense_is_refused(paths, resolutions, said, tmp_path):
    with pytest.raises((UsageError, EdgesmithError), match=said):
        _sweep_targets.sweep_targets(paths, resolutions, tmp_path)
    done = CliRunner().invoke(main, ["sweep", *paths, "--resolutions", resolutions, "--bundles", str(tmp_path)])
    assert done.exit_code == 2
    assert "error: " in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_network_is_swept_at_two_resolutions(tmp_path):
    what = ["sweep", "resnet20_cifar", "--resolutions", "32,48", "--precision", "fp32"]
    command = [*what, "--seconds", "0.05", "--processes", "1"]
    options = ["--bundles", str(tmp_path / "bundles"), "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(main, [*command, *options])
    assert done.exit_code == 0, done.output
    shapes = [
        bundle.read(tmp_path / "bundles" / f"latency-resnet20_cifar-{side}").spec.input_shape for side in (32, 48)
    ]
    assert shapes == [(3, 32, 32), (3, 48, 48)]
    (run,) = json.loads(done.stdout)
    measured = {tuple(one["subject"]["input_shape"][-2:]) for one in run["results"]}
    assert measured == {(32, 32), (48, 48)}
