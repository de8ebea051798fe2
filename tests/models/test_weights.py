import os
import pickle

import pytest
import torch

from edgesmith.models import catalog, checkpoints, weights
from edgesmith.models.nearest import nearest_network
from edgesmith.models.training import train, transfer
from edgesmith.models.training.batches import Batches
from edgesmith.runtime import datasets
from edgesmith.runtime.errors import ModelError, UsageError
from support.trained import FILE, NAME, trained

torch.set_num_threads(1)


def fresh(classes=10):
    return catalog.build_network(NAME, classes), catalog.network_spec(NAME, "digits")


def test_the_trained_file_is_what_it_says():
    module, spec = trained()
    found = train.score(module, Batches.of(datasets.load("digits", "test"), spec))
    assert found > 97
    assert not module.training
    untrained, _ = fresh()
    assert train.score(untrained, Batches.of(datasets.load("digits", "test"), spec)) < 50


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    first, spec = fresh()
    state = torch.get_rng_state()
    assert weights.load_into(first, spec, "random").weights == "random"
    assert torch.equal(state, torch.get_rng_state())
    second, _ = fresh()
    weights.load_into(second, spec, "random")
    assert torch.equal(first.fc.weight, second.fc.weight)


def test_settled_norms_keep_activations_in_range():
    module, x = catalog.build_network("googlenet_noaux", 10), torch.randn(1, 3, 64, 64)
    weights.load_into(module, catalog.network_spec("googlenet_noaux", "digits"), "random")
    before = transfer.feature_extractor(module, "inception5b")(x).std()
    weights.warm_up_batchnorm(module, (3, 64, 64))
    assert transfer.feature_extractor(module, "inception5b")(x).std() > 0.1 > 10 * before
    assert not module.training
    assert module.conv1.bn.momentum == 0.1


def test_a_pth_loads_as_well(tmp_path):
    source, spec = trained()
    path = tmp_path / "w.pth"
    torch.save({"state_dict": source.state_dict()}, path)
    module, _ = fresh()
    assert weights.load_into(module, spec, str(path)).weights == "w.pth"
    assert torch.equal(module.fc.weight, source.fc.weight)


class Code:
    def __reduce__(self):
        return os.system, ("true",)


def damaged(path):
    path.write_bytes(FILE.read_bytes()[:5000])


def no_tensors(path):
    torch.save([1, 2], path)


def code(path):
    path.write_bytes(pickle.dumps(Code()))


def code_in_torch(path):
    torch.save({"x": Code()}, path)


BAD = {
    "cut short": ("w.safetensors", damaged, "is not a checkpoint that can be read"),
    "text": ("w.safetensors", lambda path: path.write_text("hello"), "is not a checkpoint that can be read"),
    "text in pth": ("w.pth", lambda path: path.write_text("hello"), "w.pth"),
    "no tensors": ("w.pth", no_tensors, "holds no state dict; got list"),
    "a pickle with code": ("w.pth", code, "w.pth"),
    "a torch file with code": ("w.pth", code_in_torch, "was refused: it is a pickle that holds more than tensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_checkpoint_is_one_line_and_nothing_is_loaded(case, tmp_path):
    name, write, message = BAD[case]
    path = tmp_path / name
    write(path)
    module, spec = fresh()
    before = module.fc.weight.clone()
    with pytest.raises(ModelError, match=message):
        weights.load_into(module, spec, str(path))
    assert torch.equal(before, module.fc.weight)


def test_the_same_weights_are_the_same_bytes(tmp_path):
    notes = dict(zip("hgfedcba", ("é", 'a "quoted" \\ \n\x01\x7f', *"123456"), strict=True))
    state = {"a.weight": torch.ones(3, 2), "b": torch.zeros(1, dtype=torch.int64)}
    for number in range(6):
        checkpoints.write_checkpoint(tmp_path / f"{number}.safetensors", state, notes)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert checkpoints.checkpoint_metadata(tmp_path / "0.safetensors") == notes
    assert torch.equal(checkpoints.read_checkpoint(tmp_path / "0.safetensors")["a.weight"], state["a.weight"])


def test_code_in_a_pickle_does_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    path = tmp_path / "w.pth"
    torch.save({"x": Touch()}, path)
    with pytest.raises(ModelError):
        checkpoints.read_checkpoint(path)
    assert not marker.exists()


def test_a_misfit_gives_three_lists_and_the_network_that_would_fit():
    state = checkpoints.read_checkpoint(FILE)
    state["extra"] = torch.zeros(1)
    del state["conv1.0.weight"]
    module, _ = fresh(classes=7)
    with pytest.raises(ModelError) as caught:
        checkpoints.load_checkpoint(module, state, "w", nearest_network)
    assert str(caught.value).startswith(
        "w does not fit the network; nothing was loaded; got 1 missing (conv1.0.weight); 1 unexpected (extra); "
        "2 wrong shape (fc.weight (10, 1024) for (7, 1024), fc.bias (10,) for (7,)); expected the 338 keys"
    )


NEAREST = {
    "resnet18": ("resnet34", 1000),
    "plain34": ("resnet18", 1000),
    "mobilenetv2": ("mobilenetv3_small", 10),
    "squeezenet1_1": ("squeezenet1_0", 1000),
}


@pytest.mark.parametrize("name", NEAREST)
def test_the_nearest_network_is_named_also_with_other_classes_and_a_key_too_many(name):
    into, classes = NEAREST[name]
    state = {**catalog.build_network(name, classes).state_dict(), "extra": torch.zeros(2)}
    with torch.device("meta"):
        module = catalog.build_network(into)
    with pytest.raises(ModelError, match=f"do: it looks like {name}$"):
        checkpoints.load_checkpoint(module, state, "w", nearest_network)


def test_the_nearest_is_named_for_other_channels_and_classes_of_a_small_network():
    state = catalog.build_network("lenet5", 2).state_dict()
    state["conv1.weight"] = torch.zeros(6, 3, 5, 5)
    with torch.device("meta"):
        module = catalog.build_network("resnet20_cifar")
    with pytest.raises(ModelError, match="do: it looks like lenet5$"):
        checkpoints.load_checkpoint(module, state, "w", nearest_network)
    unlike = {f"layer{number}.weight": torch.zeros(number + 1) for number in range(12)}
    with pytest.raises(ModelError, match="do: check the model's name"):
        checkpoints.load_checkpoint(module, unlike, "w", nearest_network)


USAGE = {
    "a name that is none": ("digit", "unknown weights 'digit'"),
    "a file that is not there": ("nowhere.pth", "cannot read checkpoint nowhere.pth; got no such file"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_use_of_weights(case, tmp_path):
    source, message = USAGE[case]
    module, spec = fresh()
    with pytest.raises(UsageError, match=message):
        weights.load_into(module, spec, source, folder=tmp_path)


def test_digits_need_ten_classes(tmp_path):
    module = catalog.build_network(NAME)
    with pytest.raises(UsageError, match="cannot take weights of the digits"):
        weights.load_into(module, catalog.network_spec(NAME), "digits", folder=tmp_path)


def test_digits_are_trained_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setitem(weights.recipes.RECIPES, "onecycle", weights.recipes.Recipe(epochs=1, small=0.0))
    spec = catalog.network_spec("lenet5", "digits")
    first, second = catalog.build_network("lenet5", 10), catalog.build_network("lenet5", 10)
    assert weights.load_into(first, spec, "digits", folder=tmp_path).weights == "digits"
    path = tmp_path / "lenet5-digits.safetensors"
    kept = path.stat().st_mtime_ns
    weights.load_into(second, spec, "digits", folder=tmp_path)
    assert path.stat().st_mtime_ns == kept
    assert torch.equal(first.classifier[0].weight, second.classifier[0].weight)
    monkeypatch.setitem(weights.recipes.RECIPES, "onecycle", weights.recipes.Recipe(epochs=1, small=0.0, lr=1e-3))
    weights.load_into(second, spec, "digits", folder=tmp_path)
    assert path.stat().st_mtime_ns != kept


def test_the_package_has_trained_weights_of_the_first_command(tmp_path):
    module, spec = catalog.build_network("mobilenetv2", 10), catalog.network_spec("mobilenetv2", "digits")
    assert weights.load_into(module, spec, "digits", folder=tmp_path).weights == "digits"
    assert not list(tmp_path.iterdir())
    assert round(train.score(module, Batches.of(datasets.load("digits", "test"), spec)), 2) == 98.89


def test_own_weights_go_before_those_of_the_package(tmp_path, monkeypatch):
    digest = weights._digest("digits", weights.recipes.find_recipe("onecycle"))
    own, spec = catalog.build_network("mobilenetv2", 10), catalog.network_spec("mobilenetv2", "digits")
    weights.save_weights(tmp_path / "mobilenetv2-digits.safetensors", own, spec, digest)
    module = catalog.build_network("mobilenetv2", 10)
    weights.load_into(module, spec, "digits", folder=tmp_path)
    assert torch.equal(module.state_dict()["classifier.1.weight"], own.state_dict()["classifier.1.weight"])


def test_weights_of_the_package_are_of_one_recipe_and_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "DATA", tmp_path)
    module, spec = catalog.build_network("lenet5", 10), catalog.network_spec("lenet5", "digits")
    weights.save_weights(tmp_path / "lenet5.safetensors", module, spec, "of this recipe")
    path = tmp_path / f"lenet5-digits-{weights.sha256(tmp_path / 'lenet5.safetensors')[:12]}.safetensors"
    (tmp_path / "lenet5.safetensors").rename(path)
    assert weights.shipped_weights("lenet5", "of this recipe") == path
    assert weights.shipped_weights("lenet5", "of another recipe") is None
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="is damaged"):
        weights.shipped_weights("lenet5", "of this recipe")


def test_a_network_without_a_public_checkpoint_says_so(tmp_path):
    with pytest.raises(UsageError, match="lenet5 has no public checkpoint here"):
        weights.load_into(catalog.build_network("lenet5"), catalog.network_spec("lenet5"), "imagenet", folder=tmp_path)
