"""What a manifest says of the fit: nothing new where nothing new is said, and every format is read."""

import json
from pathlib import Path

import pytest

from edgesmith.runtime import bundle
from edgesmith.runtime.bundle import manifest
from edgesmith.runtime.errors import BundleError, ModelError
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.bundles import colour_bundle
from support.schema import problems

SCHEMA = json.loads((Path(manifest.__file__).parent / "manifest.schema.json").read_text())
EARLY = ("crop", "resize", "interpolation", "mean", "std", "channels")
# preprocessing -> format, fields that formats before 4 did not have
SAID = {
    "as ever": ({}, 1, set()),
    "stretch as ever": ({"resize": 0}, 1, set()),
    "a fill of the same number": ({"fill": 114.0}, 1, set()),
    "letterbox": ({"fit": "letterbox"}, 4, {"fit"}),
    "crop, in words": ({"fit": "crop"}, 4, {"fit"}),
    "pad with black": ({"fit": "pad", "fill": 0}, 4, {"fit", "fill"}),
    "channels": ({"fit": "pad", "fill": (1, 2.5, 3), "enlarge": False}, 4, {"fit", "fill", "enlarge"}),
    "OpenCV's": ({"interpolation": "opencv-area"}, 4, set()),
}


@pytest.mark.parametrize("case", SAID)
def test_a_spec_says_no_more_than_it_must(case):
    words, number, fields = SAID[case]
    spec = ModelSpec("net", preprocess=Preprocess(**words))
    assert set(json.loads(spec.to_json())["preprocess"]) == {*EARLY, *fields}
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert manifest.Manifest(spec, (), {}).format == number


def test_the_schema_has_every_field():
    assert set(SCHEMA["$defs"]["spec"]["properties"]["preprocess"]["properties"]) == set(
        Preprocess.__dataclass_fields__
    )


@pytest.mark.parametrize("settings", [{}, {"head": "anchors", "levels": ((4, 4, ((8.0, 8.0),)),), "most": 7}])
def test_a_decoder_is_said_from_format_5_on(settings):
    spec = ModelSpec("net", (3, 8, 8), 2, task="detect", preprocess=Preprocess((8, 8), 0), decoder=settings)
    content = manifest.Manifest(spec, (), {})
    values = json.loads(content.to_json())
    assert values["format"] == content.format == (5 if settings else 1)
    assert ("decoder" in values["spec"]) == bool(settings)
    assert problems(values, SCHEMA) == []
    assert manifest.parse_manifest(content.to_json()).spec == spec
    if settings:
        with pytest.raises(BundleError, match="format 4 with fields that only format 5 has"):
            manifest.parse_manifest(json.dumps({**values, "format": 4}))


def test_the_schema_has_every_field_of_a_spec():
    assert set(SCHEMA["$defs"]["spec"]["properties"]) == set(ModelSpec.__dataclass_fields__)


def test_the_bytes_of_a_spec_of_before():
    expected = (
        '{"channels": "RGB", "crop": [224, 224], "interpolation": "bilinear", "mean": [0.485, 0.456, 0.406], '
        '"resize": 256, "std": [0.229, 0.224, 0.225]}'
    )
    assert f'"preprocess": {expected}' in ModelSpec("net").to_json()


def test_a_manifest_of_an_earlier_format_cannot_say_letterbox(tmp_path):
    colours = colour_bundle(tmp_path / "colours")
    path = Path(colours.source) / manifest.NAME
    values = json.loads(path.read_text())
    assert values["format"] == 1
    values["spec"]["preprocess"]["fit"] = "letterbox"
    with pytest.raises(BundleError, match="format 1 with fields that only format 4 has"):
        manifest.parse_manifest(json.dumps(values))
    values["format"] = 4
    assert manifest.parse_manifest(json.dumps(values)).spec.preprocess.fits == "letterbox"
    assert bundle.Bundle


BAD = {
    "an unknown fit": ({"fit": "squash"}, "fit 'squash'"),
    "a fit that is no word": ({"fit": 3}, "fit 3"),
    "a crop of nothing": ({"fit": "crop", "resize": 0}, "fit 'crop' with resize 0"),
    "too dark": ({"fill": -1}, "numbers from 0 to 255"),
    "too bright": ({"fill": [0, 0, 256]}, "numbers from 0 to 255"),
    "two of three": ({"fill": [0, 0]}, "not 3 numbers"),
    "a word": ({"fill": "grey"}, "not all numbers"),
    "nothing": ({"fill": None}, "not all numbers"),
    "a yes": ({"fill": True}, "not all numbers"),
    "no yes": ({"enlarge": 1}, "enlarge 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_no_preprocessing_can_be_is_refused(case):
    words, message = BAD[case]
    values = ModelSpec("net").to_dict()
    with pytest.raises(ModelError, match=message):
        ModelSpec.from_json(json.dumps({**values, "preprocess": {**values["preprocess"], **words}}))
