"""Accuracy in shards: together what counting all images at once says, whatever the shards; what is missing is said."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edgesmith.bench.evaluations import evaluate
from edgesmith.bench.metrics import accuracy
from edgesmith.bench.sweep import sharded_accuracy, sweep
from edgesmith.bench.sweep.sweep import Store
from edgesmith.cli.sweep import sweep_command
from edgesmith.runtime import tasks
from edgesmith.runtime.bundle.bundle import read_bundle
from edgesmith.runtime.selection.candidates import open_artefact
from support.bundles import LABELS, colour_bundle, picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("evaluate")
    colour_bundle(place / "colours")
    for colour in LABELS:
        (place / "images" / "val" / colour).mkdir(parents=True)
        for number in range(5):
            path = place / "images" / "val" / colour / f"{number}.png"
            Image.fromarray(np.roll(picture(colour), number, axis=0)).save(path)
    wrong = place / "images" / "val" / LABELS[0] / "9.png"  # one image in the wrong folder
    shutil.copy(place / "images" / "val" / LABELS[1] / "0.png", wrong)
    return place


def swept(folder, out, shards):
    every = sharded_accuracy.shard_cells([str(folder / "colours")], str(folder / "images"), "test", shards)
    cells = [cell for cell in every if cell.backend == "ort"]
    store = Store(out)
    assert sweep.sweep(cells, store, sharded_accuracy.measure_shard) == (len(cells), 0)
    return cells, store


def scored(logits, labels):
    return tasks.find("classify").score({"y": logits}, labels, tasks.DecodeContext()).values


@pytest.mark.parametrize("shards", [1, 3, 20])
def test_shards_add_up_to_all_images(shards, folder, tmp_path):
    (run,) = sharded_accuracy.gather_shards(*swept(folder, tmp_path, shards))
    assert [one.subject.form for one in run.results] == ["fp32", "int8-ort-x86"]
    opened = read_bundle(folder / "colours")
    for one, artefact in zip(run.results, opened.artefacts, strict=True):
        answers, labels, other = evaluate(opened, artefact, "ort", str(folder / "images"), "test")
        logits, reference = answers.reduced["output"], other and other.raw["output"]
        values = one.readings["accuracy"].values
        assert values["images_count"] == 16
        assert values["top1_ratio"] == scored(logits, labels)["top1_ratio"] == 15 / 16
        assert values["worst_class_top1_ratio"] == pytest.approx(5 / 6)
        assert "top5_ratio" not in values
        if reference is None:
            assert "agreement_ratio" not in values
        else:
            assert values["agreement_ratio"] == (logits.argmax(1) == reference.argmax(1)).mean()
            assert values.get("sqnr_db") == accuracy.sqnr_db(reference, logits)  # None: equal outputs have no noise


def test_counts_of_halves_say_what_all_says():
    """Noisy logits of 200 images and 10 classes: agreement, SQNR, top-5 and classes add up."""
    rng = np.random.default_rng(0)
    exact, truth = rng.standard_normal((200, 10)).astype(np.float32), rng.integers(0, 10, 200)
    logits = exact + rng.normal(0, 0.3, exact.shape).astype(np.float32)
    tally, classes = dict.fromkeys(sharded_accuracy.SUMS, 0.0), {}
    for half in (slice(0, 70), slice(70, 200)):
        sharded_accuracy._count(tally, classes, logits[half], exact[half], truth[half])
    values = sharded_accuracy.reading_of(tally, classes, "test").values
    expected = scored(logits, truth)
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert values["agreement_ratio"] == (logits.argmax(1) == exact.argmax(1)).mean() < 1
    assert values["sqnr_db"] == pytest.approx(accuracy.sqnr_db(exact, logits), abs=1e-3)
    assert classes[3] == [(truth == 3).sum(), ((truth == 3) & (logits.argmax(1) == 3)).sum()]


def test_a_missing_shard_is_said(folder, tmp_path):
    cells, store = swept(folder, tmp_path, 4)
    store.path(cells[1]).unlink()
    (run,) = sharded_accuracy.gather_shards(cells, store)
    assert "1 of 4 shards are missing; do: run the same command again" in run.results[0].readings["accuracy"].notes
    assert run.results[0].value("accuracy", "images_count") == 12
    assert run.results[1].value("accuracy", "images_count") == 16


def test_a_fixed_batch_is_filled_up_and_cut(folder):
    opened = read_bundle(folder / "colours")
    with open_artefact(opened, opened.artefacts[0], "ort") as session:
        images = np.random.default_rng(0).standard_normal((5, *opened.spec.input_shape), dtype=np.float32)
        one_by_one = np.concatenate(
            [sharded_accuracy.outputs(session, opened.spec, images[at : at + 1]) for at in range(5)]
        )
        assert np.allclose(sharded_accuracy.outputs(session, opened.spec, images), one_by_one, atol=1e-5)


def test_the_command_and_what_it_refuses(folder, tmp_path):
    words = [str(folder / "colours"), "--evaluate", str(folder / "images"), "--shards", "2", "--precision", "fp32",
             "--out", str(tmp_path / "out"), "--json"]  # fmt: skip
    done = CliRunner().invoke(sweep_command, words)
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)[0]["results"][0]["readings"]["accuracy"]["values"]
    assert values["top1_ratio"] == 15 / 16
    (tmp_path / "net.onnx").write_bytes(b"")
    bare = CliRunner().invoke(sweep_command, [str(tmp_path / "net.onnx"), "--evaluate", str(folder / "images")])
    assert bare.exit_code == 2
    assert "has no accuracy" in bare.stderr
    digits = CliRunner().invoke(
        sweep_command,
        [str(folder / "colours"), "--evaluate", "digits", "--shards", "1", "--out", str(tmp_path / "two")],
    )
    assert digits.exit_code == 1
    assert "the images do not match the network" in digits.stderr


def other_pixels(place):
    Image.fromarray(255 - picture(LABELS[2])).save(place / "images" / "val" / LABELS[2] / "0.png")


CHANGES = {
    "other pixels under the same name": other_pixels,
    "one image more": lambda place: shutil.copy(place / "images" / "val" / LABELS[0] / "0.png",
                                                place / "images" / "val" / LABELS[0] / "00.png"),
    "one image fewer": lambda place: (place / "images" / "val" / LABELS[0] / "0.png").unlink(),
    "another label": lambda place: (place / "images" / "val" / LABELS[0] / "0.png").rename(
        place / "images" / "val" / LABELS[1] / "z.png"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_a_worker_with_other_images_is_refused_and_their_cells_are_measured_again(case, folder, tmp_path):
    """The worker is another machine with its own copy of the folder; each shard that differs fails, and some must."""
    place = shutil.copytree(folder, tmp_path / "copy")
    listed = [str(place / "colours")], str(place / "images"), "test", 3, ("fp32",)
    cells = [one for one in sharded_accuracy.shard_cells(*listed) if one.backend == "ort"]
    assert all(sweep.attempt_cell(one, sharded_accuracy.measure_shard).run for one in cells)
    CHANGES[case](place)
    again = [one for one in sharded_accuracy.shard_cells(*listed) if one.backend == "ort"]
    changed = [one for one, other in zip(cells, again, strict=True) if one.key != other.key]
    assert changed
    for one in cells:
        failure = sweep.attempt_cell(one, sharded_accuracy.measure_shard).failure
        assert ("are not those of this sweep" in failure) == (one in changed)
