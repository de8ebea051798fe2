"""A module's number of classes is guessed from its outputs for every task that can tell it, as a file's is."""

import pytest
import torch

from edgesmith.export.sources.facts import Facts
from edgesmith.export.sources.module_facts import add_called
from edgesmith.runtime.spec import InputSpec

LAYERS = {
    "segment": (lambda: torch.nn.Conv2d(1, 5, 1), 5), "multi_label": (lambda: torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 7)), 7),
}  # fmt: skip


@pytest.mark.parametrize("task", LAYERS)
def test_the_classes_of_a_module_are_guessed_for_its_task(task):
    build, classes = LAYERS[task]
    facts = Facts()
    facts.add("--task", task=task)
    add_called(build().eval(), facts, "", [InputSpec("input", (1, 8, 8))])
    assert (facts.get("task"), facts.get("num_classes")) == (task, classes)
