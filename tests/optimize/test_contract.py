"""Recipes name passes, and the documentation lists them; what each promises: tests/test_contracts.py."""

from pathlib import Path

import pytest
from experiments import passes_table as documentation

from edgesmith.optimize import passes
from edgesmith.optimize.recipes import recipe, recipes
from edgesmith.runtime.common.plugins import plugin_names

NAMES = plugin_names(passes)


@pytest.mark.parametrize("target", recipes())
def test_recipes_name_passes(target):
    assert set(recipe(target)) <= set(NAMES)


def test_the_page_lists_the_passes():
    page = (Path(__file__).resolve().parents[2] / "docs" / "passes.md").read_text()
    assert documentation.table() in page, (
        "run `PYTHONPATH=tests python -m experiments.passes_table` and paste its table"
    )
