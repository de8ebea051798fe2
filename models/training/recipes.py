"""Training recipes as data; the digest of a recipe identifies cached weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

from ...runtime.common.plugins import did_you_mean
from ...runtime.errors import UsageError
from .augment import Augment

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("onecycle", "plateau", "constant")


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    `lr` is the highest learning rate. `small` is the share of the first epochs that run on images of `small_side`
    times the side, which is faster. `patience`: stop after this many epochs without a better loss on a held-out tenth
    of the training images; 0 trains on all images to the end. `ema`: decay of the averaged weights per step, 0 for
    none. `freeze`: train the last layer only (linear probe). `lower_lr`: factor on the learning rate of the middle
    third of the layers, squared for the lowest third.
    """

    optimizer: str = "adamw"
    schedule: str = "onecycle"
    epochs: int = 18
    batch: int = 32
    lr: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    small: float = 0.0
    small_side: float = 0.75
    ema: float = 0.0
    patience: int = 0
    freeze: bool = False
    lower_lr: float = 1.0
    augment: Augment = field(default_factory=Augment)

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe's fields."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()


STILL = Augment(rotate=0.0, shift=0.0, scale=0.0, shear=0.0, erase=False)
RECIPES = {
    # Smith and Topin 2018 with AdamW: few epochs, for small data.
    "onecycle": Recipe(),
    # The same for nets that are cheap per image and need more passes.
    "onecycle-long": Recipe(epochs=20),
    # The same for nets whose time goes with the pixels: fewer epochs, most of them on smaller images.
    "onecycle-short": Recipe(epochs=9, lr=2e-3, small=0.6),
    # What is learnt has places in the image, so it is not moved.
    "detect": Recipe(epochs=4, batch=8, lr=2e-3, label_smoothing=0.0, augment=STILL),
    "segment": Recipe(epochs=4, batch=8, lr=2e-3, label_smoothing=0.0, augment=STILL),
    # He et al. 2015: SGD with momentum 0.9, 0.1 divided by 10 on a plateau, batch 256, weight decay 1e-4.
    "resnet": Recipe(
        "sgd", "plateau", epochs=90, batch=256, lr=0.1, weight_decay=1e-4, label_smoothing=0.0, small=0.0, patience=12
    ),
    # Transfer: the last layer alone, on frozen features.
    "probe": Recipe(epochs=20, lr=1e-2, weight_decay=0.0, small=0.0, freeze=True),
    # Transfer: everything, with 1/10 of the learning rate in the middle and 1/100 below.
    "finetune": Recipe(epochs=10, lr=1e-3, small=0.0, lower_lr=0.1),
}


def find_recipe(name: str) -> Recipe:
    """Return a named recipe.

    Raises:
        UsageError: No such recipe.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}", expected=", ".join(RECIPES), do=did_you_mean(name, RECIPES))
    return RECIPES[name]


def check_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe if it can be run.

    Raises:
        UsageError: A field has a value that is not valid.
    """
    rules = {
        "optimizer": recipe.optimizer in OPTIMIZERS,
        "schedule": recipe.schedule in SCHEDULES,
        "epochs": recipe.epochs >= 1,
        "batch": recipe.batch >= 2,
        "lr": 0 < recipe.lr <= 100,
        "label_smoothing": 0 <= recipe.label_smoothing < 1,
        "ema": 0 <= recipe.ema < 1,
        "small": 0 <= recipe.small <= 1,
        "lower_lr": 0 < recipe.lower_lr <= 1,
    }
    for name, good in rules.items():
        if not good:
            raise UsageError(f"the recipe's {name} cannot be used", got=repr(getattr(recipe, name)), do="change it")
    return recipe
