"""Hugging Face folders on disk: built by timm or transformers (stand-ins here) or the zoo, and what is refused."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgesmith.export.api import describe
from edgesmith.export.sources.facts import Facts
from edgesmith.export.sources.huggingface import _add_preprocessor
from edgesmith.export.sources.source import find_source
from edgesmith.models import catalog
from edgesmith.runtime.errors import EdgesmithError, ModelError, NotAvailable, UsageError
from edgesmith.runtime.spec import Preprocess


class Small(nn.Module):
    """A classifier as both packages would build one: logits, or an object that has them."""

    def __init__(self, num_classes, logits_only):
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, num_classes)
        self.logits_only = logits_only

    def forward(self, x=None, pixel_values=None):
        images = x if pixel_values is None else pixel_values
        logits = self.head(self.features(images).mean((2, 3)))
        return logits if self.logits_only else SimpleNamespace(logits=logits, hidden_states=None)


@pytest.fixture
def packages(monkeypatch):
    """timm and transformers as far as they are called, and the calls."""
    calls, timm, transformers = [], ModuleType("timm"), ModuleType("transformers")

    def create_model(name, pretrained, num_classes, **arguments):
        calls.append((name, pretrained, num_classes, arguments))
        return Small(num_classes, True)

    def from_pretrained(folder, local_files_only, trust_remote_code):
        calls.append(("config", local_files_only, trust_remote_code))
        return json.loads((folder / "config.json").read_text())

    def from_config(settings, trust_remote_code):
        calls.append(("network", trust_remote_code))
        if settings["model_type"] == "bert":
            raise ValueError("Unrecognized configuration class\nBertConfig for AutoModelForImageClassification")
        return Small(len(settings["id2label"]), False)

    timm.create_model, timm.is_model = create_model, lambda name: name == "resnet10t"
    transformers.AutoConfig = SimpleNamespace(from_pretrained=from_pretrained)
    transformers.AutoModelForImageClassification = SimpleNamespace(from_config=from_config)
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    return calls


@pytest.fixture
def none(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "transformers", None)


LABELS = {"0": "cat", "1": "dog", "10": "owl", "2": "bee"}  # by number, not as texts
TYPED = {"model_type": "small", "id2label": {str(at): f"c{at}" for at in range(11)}, "image_size": 20}
VIT = {"do_resize": True, "size": {"height": 24, "width": 20}, "resample": 3, "image_mean": [0.5] * 3,
       "image_std": [0.25] * 3, "do_normalize": True, "rescale_factor": 1 / 255}  # fmt: skip


def write(folder, config, preprocessor=None, module=None, pickled=False):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    if module is not None and pickled:
        torch.save(module.state_dict(), folder / "pytorch_model.bin")
    elif module is not None:
        save_file(module.state_dict(), folder / "model.safetensors")
    return str(folder)


@pytest.mark.parametrize("pickled", [False, True])
def test_a_folder_of_transformers_is_built_from_its_files_alone(pickled, packages, tmp_path):
    weights = Small(11, False)
    network = describe(write(tmp_path / "My Net", TYPED, VIT, weights, pickled))
    assert packages == [("config", True, False), ("network", False)]
    images = torch.rand(2, 3, 24, 20)
    torch.testing.assert_close(network.module(images), weights(images).logits)
    spec, facts = network.spec, {fact.name: fact.origin for fact in network.facts}
    assert (spec.name, spec.num_classes, spec.labels) == ("my-net", 11, tuple(f"c{at}" for at in range(11)))
    assert spec.preprocess == Preprocess((24, 20), 0, "bicubic", (0.5,) * 3, (0.25,) * 3)
    assert facts["labels"] == "id2label in config.json"
    assert facts["mean"] == facts["size"] == "preprocessor_config.json"
    assert facts["weights"] == "the folder; nothing is downloaded, none of its code is run"


def test_a_folder_of_timm_is_built_with_its_arguments_and_configuration(packages, tmp_path):
    settings = {
        "input_size": [3, 28, 28],
        "mean": [0.1] * 3,
        "std": [0.2] * 3,
        "crop_pct": 0.7,
        "interpolation": "bicubic",
    }
    config = {"architecture": "resnet10t", "num_classes": 4, "label_names": list("abcd"), "pretrained_cfg": settings,
              "model_args": {"stem_width": 8}}  # fmt: skip
    weights = Small(4, True)
    network = describe(write(tmp_path / "net", config, None, weights))
    assert packages == [("resnet10t", False, 4, {"stem_width": 8})]
    assert network.spec.labels == tuple("abcd")
    assert network.spec.preprocess == Preprocess((28, 28), 40, "bicubic", (0.1,) * 3, (0.2,) * 3)
    assert torch.equal(network.module.head.weight, weights.head.weight)
    flat = {"architecture": "resnet10t", "num_classes": 4, **settings}  # as older folders have it
    assert describe(write(tmp_path / "net", flat, None, weights)).spec.preprocess == network.spec.preprocess
    with pytest.raises(UsageError, match="timm has no network 'resnet11'; got architecture in .*config.json"):
        describe(write(tmp_path / "net", {**config, "architecture": "resnet11"}))


def test_options_and_a_spec_file_are_believed_before_the_folder(packages, tmp_path):
    folder = write(tmp_path / "net", TYPED, VIT, Small(11, False))
    spec = describe(folder, size="32", mean="0.1", labels=tuple("abcdefghijk")).spec
    assert (spec.input_shape, spec.preprocess.mean, spec.labels[0]) == ((3, 32, 32), (0.1,) * 3, "a")


def test_without_transformers_a_network_of_the_zoo_takes_weights_that_fit(none, tmp_path):
    module = catalog.build_network("mobilenetv2", 3)
    config = {"model_type": "mobilenet_v2", "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}
    network = describe(write(tmp_path / "net", config, None, module), size="32")
    assert torch.equal(next(network.module.parameters()), next(module.parameters()))
    assert network.spec.labels == ()  # LABEL_0 says nothing


PREPROCESSORS = {  # preprocessor_config.json -> facts
    "a crop": (
        {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 200}},
        {"size": (224, 200), "resize": 256, "fit": "crop"},
    ),
    "a crop, by numbers": (
        {"size": 256, "do_center_crop": True, "crop_size": 224}, {"size": (224, 224), "resize": 256},
    ),
    "stretched": ({"size": 224}, {"size": (224, 224), "fit": "stretch"}),
    "stretched, then all is cropped": (
        {"size": {"height": 8, "width": 8}, "do_center_crop": True, "crop_size": 8}, {"size": (8, 8), "fit": "stretch"},
    ),
    "a share": ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, {"size": (224, 224), "resize": 256}),
    "a share of a large image": (
        {"size": {"shortest_edge": 384}, "crop_pct": 0.9}, {"size": (384, 384), "fit": "stretch"},
    ),
    "no resizing": ({"do_resize": False, "do_center_crop": True, "size": 9, "crop_size": 8}, {"size": (8, 8)}),
    "no word": ({}, {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear"}),
    "pixels to 255": (
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
        {"mean": (0.5,) * 3, "std": (0.5,) * 3},
    ),
    "-1 to 1 by an offset": (
        {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
        {"mean": (0.5,) * 3, "std": (0.5,) * 3},
    ),
    "not normalised": ({"do_normalize": False, "image_mean": [0.5] * 3}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
    "BGR": ({"do_flip_channel_order": True}, {"channels": "BGR"}),
    "nearest": ({"resample": 0}, {"interpolation": "nearest"}),
}  # fmt: skip


@pytest.mark.parametrize("case", PREPROCESSORS)
def test_a_preprocessor_is_read(case, tmp_path):
    values, expected = PREPROCESSORS[case]
    facts = Facts()
    write(tmp_path, {}, values)
    _add_preprocessor(tmp_path, facts)
    got = {name: facts.get(name) for name in expected}
    assert got == {name: pytest.approx(value) if name in ("mean", "std") else value for name, value in expected.items()}


REFUSED = {  # config.json, preprocessor_config.json -> the error
    "no JSON": ("{", None, ModelError, "cannot read .*config.json; got Expecting"),
    "no object": ("[1]", None, ModelError, "cannot read .*config.json; got list; expected a JSON object"),
    "code of its own": (
        {**TYPED, "auto_map": {"AutoModel": "net.Net"}}, None, UsageError, "needs Python code of its own",
    ),
    "no image network": (
        {**TYPED, "model_type": "bert"}, None, UsageError, "cannot build model_type 'bert'.*BertConfig",
    ),
    "weights of another": (
        {**TYPED, "id2label": LABELS}, None, ModelError, "model.safetensors does not fit the network",
    ),
    "wrong labels": (
        {**TYPED, "id2label": {"cat": 0}}, None, ModelError, "configuration in .* cannot be used; got ValueError",
    ),
    "wrong size": (TYPED, {"size": {"depth": 3}}, ModelError, "configuration in .* cannot be used; got KeyError"),
    "wrong mean": (TYPED, {"image_mean": ["a"]}, ModelError, "configuration in .* cannot be used; got ValueError"),
    "stretched and cropped": (
        TYPED, {"size": {"height": 9, "width": 9}, "do_center_crop": True, "crop_size": 8}, UsageError,
        "crops an image that it stretched",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_cannot_be_used_is_one_line(case, packages, tmp_path):
    config, preprocessor, kind, said = REFUSED[case]
    with pytest.raises(kind, match=said) as error:
        describe(write(tmp_path / "net", config, preprocessor, Small(11, False)))
    assert "\n" not in str(error.value)


def test_what_is_missing_is_said(none, tmp_path):
    with pytest.raises(
        NotAvailable, match="is of model_type 'small', which transformers builds; .* pip install transfo"
    ):
        describe(write(tmp_path / "net", TYPED, VIT, Small(11, False)))
    with pytest.raises(UsageError, match="has no weights; expected model.safetensors or pytorch_model.bin"):
        describe(write(tmp_path / "empty", TYPED))
    with pytest.raises(UsageError, match="takes no arguments; got width"):
        describe(str(tmp_path / "net"), args=("width=2",))
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="got a folder without config.json; expected a Hugging Face folder"):
        find_source(str(tmp_path / "other"))


def test_a_pickle_with_code_is_refused(packages, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code was run",))

    folder = write(tmp_path / "net", TYPED, VIT)
    torch.save({"head.weight": Bomb()}, tmp_path / "net" / "pytorch_model.bin")
    with pytest.raises(EdgesmithError):
        describe(folder)
