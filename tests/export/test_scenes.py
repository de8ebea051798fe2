"""Networks that are trained on the embedded scenes, from a name to a bundle that answers; here hardly trained."""

import dataclasses

import numpy as np
import pytest

from edgesmith.export.api import export
from edgesmith.models import catalog
from edgesmith.models.training import recipes, train
from edgesmith.runtime import datasets, load
from edgesmith.runtime.datasets import scenes

METRICS = {"ssdlite_mobilenetv2": "map", "lraspp_mobilenetv3": "miou"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("ssdlite_mobilenetv2", marks=pytest.mark.slow),
        pytest.param("lraspp_mobilenetv3", marks=pytest.mark.nightly),
    ],
)
def test_from_scenes_to_a_bundle_that_answers(name, tmp_path, monkeypatch):
    recipe = catalog.find_network(name).row["recipe"]
    monkeypatch.setattr(scenes, "COUNTS", {"train": 32, "test": 8, "hard": 8})
    monkeypatch.setitem(recipes.RECIPES, recipe, dataclasses.replace(recipes.RECIPES[recipe], epochs=2))
    options = {"weights_folder": tmp_path, "precision": "fp32,fp16", "target": "ort-x86", "max_drop": 100}
    summary = export(name, out=tmp_path / "first", **options)
    assert summary.passed
    assert (summary.spec.weights, summary.spec.labels[-10:]) == ("scenes", tuple("0123456789"))
    for artefact in summary.artefacts:
        assert all(0 <= artefact.results[split][METRICS[name]] <= 100 for split in ("test", "hard"))
    image = datasets.load("scenes", "test").images[0]
    with load(tmp_path / "first") as model:
        answer = model(image).decode()
    if name.startswith("ssdlite"):
        assert (answer.boxes >= 0).all()
        assert (answer.boxes <= 96).all()
    else:
        assert answer.pixels.shape == (96, 96)
        assert set(np.unique(answer.pixels)) <= set(range(11))
    monkeypatch.setattr(train, "train", lambda *_, **__: pytest.fail("it is trained again"))
    assert export(name, out=tmp_path / "second", **{**options, "precision": "fp32"}).passed
