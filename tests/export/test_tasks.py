"""`edgesmith export` of what is not a classifier of images: maps, boxes, images again, sounds, videos."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from edgesmith.cli import main
from edgesmith.runtime import load
from edgesmith.runtime.images.geometry import placement


def export(name, out, *words):
    few = ["--precision", "fp32,int8", "--target", "ort-x86", "--calibration", "32", "--json"]
    done = CliRunner().invoke(main, ["export", name, "--weights", "random", "--out", str(out), *few, *words])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_map_of_classes_from_the_network_to_the_device(tmp_path):
    made = export("unet_small", tmp_path / "unet", "--precision", "fp32")
    assert made["passed"] is True
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    with load(tmp_path / "unet") as model:
        answer = model(image)
        found = answer.class_map()
    assert found.shape == (90, 120)  # the image's
    assert found.dtype == np.int64
    place = placement((90, 120), model.spec.preprocess)
    assert np.array_equal(found, place.mask_to_image(answer.logits.argmax(0), outside=-1))
    assert 0 <= found[found >= 0].min() <= found.max() < model.spec.num_classes


LIKENESS = {"autoencoder": "agreement", "localiser": "SQNR", "tdnn": "agreement", "conv3d": "agreement"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "tdnn" else pytest.mark.slow) for name in LIKENESS]
)
def test_likeness_to_fp32_is_told_in_the_network_s_own_terms(name, tmp_path):
    made = export(name, tmp_path / name)
    check = next(check for check in made["checks"] if check["name"] == "accuracy int8-ort-x86")
    assert check["passed"] is None
    assert f"test {LIKENESS[name]} " in check["detail"]
    fp32, int8 = (row["results"]["test"] for row in made["artefacts"] if row["backend"] == "ort")
    assert "top1" not in {**fp32, **int8}
    assert ("agreement" in int8) == (LIKENESS[name] == "agreement")
    assert int8["sqnr_db"] > 10
    with load(tmp_path / name) as model:
        values = model.run(np.zeros((1, *model.spec.input_shape), np.float32))
    assert np.isfinite(next(iter(values.values()))).all()


def test_sounds_have_no_weights_of_the_digits(tmp_path):
    done = CliRunner().invoke(main, ["export", "tdnn", "--out", str(tmp_path / "x")])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].endswith(
        "tdnn takes no images; got weights digits; do: use --weights random or a file"
    )
    assert list(tmp_path.iterdir()) == []
