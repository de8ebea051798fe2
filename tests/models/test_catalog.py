import ast
import subprocess
import sys

import pytest
import torch

from edgesmith.models import catalog
from edgesmith.runtime.common.plugins import normalise
from edgesmith.runtime.errors import UsageError
from edgesmith.runtime.spec import ModelSpec

torch.set_num_threads(1)

SPELLINGS = {
    "MobileNet-V2": "mobilenetv2",
    "mobilenet_v2": "mobilenetv2",
    "shufflenet_v2_x1_0": "shufflenetv2",
    "ShuffleNetV2": "shufflenetv2",
    "ShuffleNet_V2_x0_5": "shufflenetv2_x0_5",
    "RESNET-50": "resnet50",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_name_is_found_however_it_is_spelt(spelling):
    assert catalog.find_network(spelling).name == SPELLINGS[spelling]


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UsageError) as caught:
        catalog.find_network("mobilenet_v9")
    assert str(caught.value) == "unknown model 'mobilenet_v9'; do: did you mean 'mobilenet_v2'?"
    with pytest.raises(UsageError, match="see `edgesmith models`"):
        catalog.find_network("zzzzzz")


def test_listing_the_networks_does_not_import_torch():
    code = "import sys; from edgesmith.models import catalog; catalog.network_names(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_no_two_networks_answer_to_one_name():
    spellings = [normalise(s) for name in catalog.network_names() for s in {name, *catalog.find_network(name).aliases}]
    assert len(set(spellings)) >= len(catalog.network_names())
    assert len(catalog._index()) == len(set(spellings))


def test_two_rows_with_one_name_are_found(monkeypatch):
    entries = dict(catalog._entries())
    entries["resnet-18"] = entries["mobilenetv2"]
    monkeypatch.setattr(catalog, "_entries", lambda: entries)
    with pytest.raises(ValueError, match="two networks answer to 'resnet-18'"):
        catalog._index.__wrapped__()


def test_the_tables_are_literals_with_known_keys():
    known = {
        "args", "aliases", "params", "macs", "top1", "top5", "dataset", "source", "input", "resize", "digits",
        "classes", "mean", "std", "interpolation", "task", "outputs", "checkpoint", "url", "paper",
        "recipe", "keys", "fixed", "package", "channels", "fit", "fill", "decoder", "labels", "anchors", "scenes",
        "backbone",
    }  # fmt: skip
    for name in catalog.network_names():
        entry = catalog.find_network(name)
        assert set(entry.row) <= known, name
        assert ast.literal_eval(repr(entry.row)) == entry.row
        assert entry.paper, name


def test_the_spec_of_the_digits_is_small():
    spec = catalog.network_spec("mobilenet_v2", "digits")
    assert (spec.input_shape, spec.num_classes, spec.labels) == ((3, 64, 64), 10, tuple("0123456789"))
    assert catalog.network_spec("mobilenet_v2").preprocess.resize == 256


@pytest.mark.parametrize("name", catalog.network_names())
def test_the_spec_of_a_network_is_one_that_can_be_read(name):
    spec = catalog.network_spec(name)
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_another_size_of_image_scales_the_preprocessing():
    spec = catalog.resized(catalog.network_spec("mobilenetv2"), (112, 160))
    assert (spec.input_shape, spec.preprocess.crop, spec.preprocess.resize) == ((3, 112, 160), (112, 160), 128)
    for name, said in (("lenet5", "takes images of one size"), ("tdnn", "takes no images")):
        with pytest.raises(UsageError, match=said):
            catalog.resized(catalog.network_spec(name), (48, 48))


def test_published_accuracy_names_its_data_set():
    entries = [catalog.find_network(name) for name in catalog.network_names()]
    told = {entry.name: entry.figures.dataset for entry in entries}
    assert {told[entry.name] for entry in entries if entry.figures.top1 is not None} == {"imagenet", "cifar10"}
    assert {told[entry.name] for entry in entries if entry.figures.top1 is None} == {""}
    assert told["resnet20_cifar"] == told["wrn28_10"] == "cifar10"
