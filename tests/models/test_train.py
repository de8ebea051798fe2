import dataclasses
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from edgesmith.cli.models import train_command
from edgesmith.models import catalog
from edgesmith.models.training import optimizers, recipes, train, transfer
from edgesmith.models.training.augment import Augment, augment
from edgesmith.models.training.batches import Batches, black
from edgesmith.models.training.recipes import Recipe
from edgesmith.models.training.run_state import RunState
from edgesmith.runtime import datasets
from edgesmith.runtime.errors import DataError, ModelError, UsageError
from support.trained import FILE, NAME, trained

torch.set_num_threads(1)
QUICK = Recipe(epochs=3, batch=32, small=0.4, ema=0.5)


def silent(row):
    pass


@pytest.fixture(scope="module")
def feed():
    spec = dataclasses.replace(catalog.network_spec("resnet20_cifar", "digits"), name="tiny")
    return Batches.of(datasets.load("digits", "train").head(96), spec)


def tiny():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.AdaptiveAvgPool2d(4),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def run(feed, recipe=QUICK, keeper=None, seed=1):
    module = tiny()
    torch.manual_seed(seed)
    history = train.fit_module(module, feed, recipe, seed=seed, keeper=keeper, say=silent)
    return module.state_dict(), history


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def test_a_seed_decides_everything(feed):
    first, history = run(feed)
    assert same(first, run(feed)[0])
    assert not same(first, run(feed, seed=2)[0])
    assert history[-1]["loss"] < history[0]["loss"]


RECIPES = {
    "one-cycle with averaging": QUICK,
    "sgd on a plateau, best weights": Recipe("sgd", "plateau", epochs=3, batch=32, lr=0.05, small=0.0, patience=5),
}


@pytest.mark.parametrize("case", RECIPES)
def test_a_killed_run_continues_bit_for_bit(case, feed, tmp_path):
    recipe, path = RECIPES[case], tmp_path / "run.state"
    whole, history = run(feed, recipe)

    class Killed(Exception):
        pass

    def kill(row):
        if row["epoch"] == 2:
            raise Killed

    module = tiny()
    torch.manual_seed(1)
    with pytest.raises(Killed):
        train.fit_module(
            module, feed, recipe, seed=1, keeper=RunState(path, False, {"recipe": recipe.digest}), say=kill
        )
    torch.manual_seed(99)
    resumed = nn.Sequential(*tiny())
    rows = train.fit_module(
        resumed, feed, recipe, seed=1, keeper=RunState(path, True, {"recipe": recipe.digest}), say=silent
    )
    assert same(whole, resumed.state_dict())
    assert [row["loss"] for row in rows] == [row["loss"] for row in history]


FACTS = {"recipe": QUICK.digest, "seed": "0", "data": "abc", "start": "random"}


def test_resuming_the_wrong_thing_is_refused(feed, tmp_path):
    path = tmp_path / "run.state"
    with pytest.raises(UsageError, match="there is no run to resume"):
        run(feed, keeper=RunState(path, True, FACTS))
    run(feed, keeper=RunState(path, False, FACTS))
    for name in FACTS:
        with pytest.raises(UsageError, match=f"is a run with another {name}; got {name} x; expected {name} "):
            run(feed, keeper=RunState(path, True, {**FACTS, name: "x"}))
    run(feed, keeper=RunState(path, True, FACTS))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="is not a training state"):
        run(feed, keeper=RunState(path, True, FACTS))


def test_a_stopped_run_is_not_overwritten_and_not_resumed_as_another(tmp_path, monkeypatch):
    out = tmp_path / "w.safetensors"
    words = ["lenet5", "--epochs", "2", "--out", str(out)]
    real = RunState.save

    def stops(self, run):
        real(self, run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunState, "save", stops)
        assert CliRunner().invoke(train_command, words).exit_code != 0
    state = out.with_suffix(".state").read_bytes()
    refused = {
        "is a run that was stopped; expected --resume": words,
        "is a run with another seed": [*words, "--resume", "--seed", "1"],
        "is a run with another recipe": [*words, "--resume", "--lr", "0.5"],
    }
    for message, arguments in refused.items():
        done = CliRunner().invoke(train_command, arguments)
        assert (done.exit_code, message in done.stderr) == (2, True), done.output
        assert out.with_suffix(".state").read_bytes() == state
        assert not out.exists()
    assert CliRunner().invoke(train_command, [*words, "--resume"]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_early_stopping_stops_and_keeps_the_best(feed):
    recipe = Recipe("sgd", "constant", epochs=30, batch=32, lr=50.0, weight_decay=0.0, small=0.0, patience=2)
    _, history = run(feed, recipe)
    losses = [row["val_loss"] for row in history if row["val_loss"] == row["val_loss"]]
    assert len(history) < 30
    assert len(history) >= 3 or not losses


def test_a_probe_trains_the_last_layer_only(feed):
    before = {key: value.clone() for key, value in tiny().state_dict().items()}
    after, _ = run(feed, dataclasses.replace(recipes.find_recipe("probe"), epochs=2))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"6.weight", "6.bias"}


def test_lower_layers_learn_at_lower_rates():
    module = catalog.build_network("resnet20_cifar", 10)
    found = optimizers.groups(module, Recipe(lr=1.0, lower_lr=0.1))
    rates = {id(parameter): group["lr"] for group in found for parameter in group["params"]}
    assert rates[id(module.conv1.weight)] == pytest.approx(0.01)
    assert rates[id(module.layer2[1].conv1.weight)] == pytest.approx(0.1)
    assert rates[id(module.fc.weight)] == 1.0
    assert len(rates) == len(list(module.parameters()))
    assert {group["weight_decay"] for group in found if any(p.dim() == 1 for p in group["params"])} == {0.0}


def test_augmentation_keeps_black_black_and_is_drawn_from_its_generator():
    spec = catalog.network_spec("mobilenetv2", "digits")
    dark = black(spec)
    x = dark.expand(4, 3, 16, 16).clone()
    calm = Augment(disturbed=0.0)
    torch.testing.assert_close(augment(x, dark, calm, torch.Generator().manual_seed(0)), x)
    x[:, :, 6:10, 6:10] = 2.0
    first, second = (augment(x, dark, Augment(), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(x, dark, Augment(), torch.Generator().manual_seed(6)))
    still = Augment(0.0, 0.0, 0.0, 0.0, 0.0)
    torch.testing.assert_close(augment(x, dark, still, torch.Generator()), x, rtol=0, atol=1e-4)


def test_features_are_the_activations_of_the_layer():
    module, spec = trained()
    x = torch.randn(2, *spec.input_shape)
    found = transfer.feature_extractor(module, "conv5")(x)
    assert found.shape == (2, 1024, 2, 2)
    torch.testing.assert_close(module.fc(found.mean((2, 3))), module(x))
    with pytest.raises(UsageError, match="did you mean 'conv5'"):
        transfer.feature_extractor(module, "conv6")


def test_transfer_takes_all_but_a_head_of_another_size():
    module = catalog.build_network(NAME, 3)
    head = module.fc.weight.clone()
    transfer.start_from(module, FILE)
    source, _ = trained()
    assert torch.equal(module.conv1[0].weight, source.conv1[0].weight)
    assert torch.equal(module.fc.weight, head)
    with pytest.raises(ModelError, match="nothing was loaded"):
        transfer.start_from(catalog.build_network("shufflenetv2", 3), FILE)


WRONG = {"epochs": 0, "lr": -1.0, "optimizer": "adam", "ema": 1.0}


@pytest.mark.parametrize("name", WRONG)
def test_a_recipe_that_means_nothing_is_refused(name):
    with pytest.raises(UsageError, match=f"the recipe's {name} cannot be used"):
        recipes.check_recipe(dataclasses.replace(Recipe(), **{name: WRONG[name]}))
    with pytest.raises(UsageError, match="did you mean 'probe'"):
        recipes.find_recipe("prob")


def test_the_command_trains_and_logs(tmp_path):
    out, log = tmp_path / "w.safetensors", tmp_path / "log.csv"
    arguments = ["lenet5", "--epochs", "2", "--out", str(out), "--log", str(log), "--json"]
    done = CliRunner().invoke(train_command, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["epochs"] == 2
    assert found["scores"]["test"] > 30
    assert log.read_text().splitlines()[0] == "epoch,loss,lr,seconds"
    assert not out.with_suffix(".state").exists()
    assert catalog.network_spec("lenet5", str(out)).input_shape == (1, 32, 32)


@pytest.mark.slow
def test_lenet_learns_the_digits():
    result = train.train("lenet5", recipe=dataclasses.replace(recipes.find_recipe("onecycle"), epochs=30, small=0.0))
    assert result.scores["test"] > 95


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_bad_images_of_any_split_are_named_before_training(tmp_path, monkeypatch):
    for index in range(40):
        picture(tmp_path / "train" / "ab"[index % 2] / f"{index}.png", index)
        picture(tmp_path / "val" / "ab"[index % 2] / f"{index}.png", 100 + index)
    broken = [tmp_path / "val" / "a" / "0.png", tmp_path / "val" / "b" / "7.png"]
    for path in broken:
        path.write_bytes(path.read_bytes()[:100])
    monkeypatch.setattr(train, "fit_module", lambda *_, **__: pytest.fail("training began"))
    with pytest.raises(DataError, match="2 images cannot be used") as caught:
        train.train("resnet20_cifar", str(tmp_path), recipe=QUICK)
    assert all(str(path) in str(caught.value) for path in broken)
