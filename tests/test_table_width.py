"""Tables fit the width: columns go by priority and are named, text folds, a number is never broken."""

import re

import numpy as np
import pytest

from edgesmith.cli import console

WORDS = ["worst", "error", "0.1", "tensor-with-a-long-name", "ö", "界"]


def drawn(capsys, monkeypatch, width, *arguments, **options):
    monkeypatch.setenv("COLUMNS", str(width))
    capsys.readouterr()
    console.table(*arguments, **options)
    return capsys.readouterr().out


@pytest.mark.parametrize("seed", range(40))
def test_what_is_shown_fits_and_keeps_every_number_whole(seed):
    rng = np.random.default_rng(seed)
    width, left, numbers = int(rng.integers(100, 220)), int(rng.integers(1, 4)), int(rng.integers(1, 13))
    columns = [f"text {at}" for at in range(left)] + [f"number {at}" for at in range(numbers)]
    rows = [
        [" ".join(rng.choice(WORDS, rng.integers(9))) for _ in range(left)]
        + [f"{rng.uniform(0, 10 ** rng.integers(1, 6)):.3f}" for _ in range(numbers)]
        for _ in range(3)
    ]
    spare = columns[:left:-1]
    shown, widths = console._fit(columns, rows, left, spare, width)
    assert sum(widths[at] + console.BETWEEN for at in shown) + console.EDGE <= width
    assert shown == sorted(shown)
    gone = [column for at, column in enumerate(columns) if at not in shown]
    assert set(gone) == set(spare[: len(gone)])  # the least important ones went
    assert all(widths[at] >= max(len(row[at]) for row in rows) for at in shown if at >= left)


def test_the_columns_that_are_left_out_are_named(capsys, monkeypatch):
    columns, row = ["name", "mean ms", "worst ms", "KB"], ["network", "1.234", "5.678", "90123"]
    text = drawn(capsys, monkeypatch, 30, "", columns, [row], spare=("KB", "worst ms"))
    assert "90123" not in text
    assert "1.234" in text
    assert "left out at 30 columns: KB" in text
    whole = drawn(capsys, monkeypatch, 80, "", columns, [row], spare=("KB", "worst ms"))
    assert all(cell in whole for cell in row)
    assert "left out" not in whole


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_text_folds_and_numbers_do_not(capsys, monkeypatch, width):
    text = drawn(capsys, monkeypatch, width, "", ["check", "why"], [["parity", "a rather long reason " * 4]], left=2)
    assert "aratherlongreason" * 4 in re.sub(r"\s", "", text)
    assert max(map(len, text.splitlines())) <= max(width, 30)
    numbers = drawn(capsys, monkeypatch, width, "", ["a", "b"], [["x", "123456789.123456789"]])
    assert "123456789.123456789" in numbers


@pytest.mark.parametrize(("given_", "width"), [("80", 80), ("", 200), ("wide", 200), ("0", 200), ("-3", 200)])
def test_a_pipe_is_as_wide_as_columns_says(monkeypatch, given_, width):
    monkeypatch.setenv("COLUMNS", given_)
    assert console._width() == width


def test_a_narrow_terminal_shows_the_table_of_networks_whole(capsys, monkeypatch):
    from click.testing import CliRunner

    from edgesmith.cli.models import models_command

    done = CliRunner().invoke(models_command, [], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    assert max(map(len, done.output.splitlines())) <= 80
    assert "left out at 80 columns" in done.output
