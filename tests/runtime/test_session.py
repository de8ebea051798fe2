"""Loading a bundle: the order in which artefacts are tried, the answers, and what is said when nothing works."""

import shutil

import numpy as np
import pytest
from PIL import Image

from edgesmith.runtime import bundle, load
from edgesmith.runtime.errors import BundleError, DataError, NotAvailable, RunError, UsageError
from edgesmith.runtime.selection import candidates
from support.bundles import LABELS, SIDE, SPEC, colour_bundle, golden_inputs, picture


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("made") / "colours")


@pytest.fixture(scope="module")
def model(made):
    with load(made.folder, device="ort", threads=1) as loaded:
        yield loaded


@pytest.mark.parametrize("colour", LABELS)
def test_it_names_the_brightest_channel(model, colour, tmp_path):
    image = picture(colour)
    path = tmp_path / "x.png"
    Image.fromarray(image).save(path)
    for given in (image, path, str(path), Image.fromarray(image)):
        best = model(given).top(2)
        assert (best[0].label, len(best)) == (colour, 2)
        assert best[0].probability > best[1].probability
    assert abs(float(model(image).probabilities.sum()) - 1) < 1e-6


def test_a_list_and_a_batch_give_a_list(model):
    answers = model([picture(colour) for colour in LABELS])
    assert [answer.top(1)[0].label for answer in answers] == list(LABELS)
    assert model([]) == []
    batch = golden_inputs(5)["input"]
    assert [a.logits.argmax() for a in model(batch)] == batch.mean(axis=(2, 3)).argmax(axis=1).tolist()


def test_a_fixed_batch_is_run_in_slices(tmp_path, model):
    fixed = colour_bundle(tmp_path / "fixed", batch=2)
    batch = golden_inputs(4)["input"]
    with load(fixed, device="ort", threads=1) as two:
        for count in (4, 3, 1):
            np.testing.assert_array_equal(two.run(batch[:count])["output"], model.run(batch[:count])["output"])
        with pytest.raises(DataError, match="the batch is empty"):
            two.run(batch[:0])


def test_why_names_the_choice_and_what_was_passed_over(tmp_path, made):
    engine = tmp_path / "colours-fp16-sm86.engine"
    engine.write_bytes(b"vtrt" + bytes(60))
    network = bundle.Item(made.folder / "onnx/colours-fp32.onnx", golden=made.arrays("golden/colours-fp32.npz"))
    items = [bundle.Item(engine, "engine", "fp16", "sm86"), network]
    mixed = bundle.write(tmp_path / "mixed", SPEC, items, golden_inputs=made.golden_inputs())
    with load(mixed, threads=1) as model:
        assert model.chosen.artefact.name == "colours-fp32"
        assert "chosen: colours-fp32 (fp32, generic) with " in model.why()
        assert "skipped: 1 for trt, which cannot be used here: " in model.why()
    with pytest.raises(NotAvailable, match="no artefact in .* runs here; got skipped: 1 for trt, which"):
        load(mixed, device="gpu")


ORDER = {
    "all on a CPU": ("cpu", "auto", ["int8 ort-x86", "fp32 generic", "int8 trt", "fp16 trt"]),
    "engines first where a GPU is": ("auto", "auto", ["int8 sm86", "fp16 sm86", "fp16 trt", "fp32 generic"]),
    "CUDA after TensorRT": ("gpu", "auto", ["int8 sm86", "fp16 sm86", "fp16 trt", "fp32 generic"]),
    "one precision": ("cpu", "fp16", ["fp16 trt"]),
    "one backend": ("trt", "auto", ["int8 sm86", "fp16 sm86"]),
}


@pytest.mark.parametrize("case", ORDER)
def test_the_order_is_the_stated_one(case, tmp_path, made):
    source = made.folder / "onnx/colours-fp32.onnx"
    items = []
    for precision, target in (("fp16", "trt"), ("int8", "trt"), ("fp32", "generic"), ("int8", "ort-x86")):
        path = tmp_path / f"m-{precision}-{target}.onnx"
        shutil.copyfile(source, path)
        items.append(bundle.Item(path, "onnx", precision, target))
    for precision in ("fp16", "int8"):
        path = tmp_path / f"m-{precision}-sm86.engine"
        path.write_bytes(b"vtrt")
        items.append(bundle.Item(path, "engine", precision, "sm86"))
    several = bundle.write(tmp_path / "several", SPEC, items, golden_inputs=golden_inputs())
    device, precision, expected = ORDER[case]
    found = candidates.candidates(several, device, precision)
    order = list(dict.fromkeys(f"{one.artefact.precision} {one.artefact.target}" for one in found))
    assert order[: len(expected)] == expected


ESTIMATES = {
    "the least estimate first": ({"int8": 2e-3, "fp16": 1e-3}, ["fp16", "int8"]),
    "an estimate for one only ranks nothing": ({"int8": 2e-3}, ["int8", "fp16"]),
    "what is not a number ranks nothing": ({"int8": "slow", "fp16": 1e-3}, ["int8", "fp16"]),
}


@pytest.mark.parametrize("case", ESTIMATES)
def test_engines_are_ranked_by_their_estimates(case, tmp_path):
    estimates, expected = ESTIMATES[case]
    items = []
    for precision in ("fp16", "int8"):
        path = tmp_path / f"m-{precision}.engine"
        path.write_bytes(b"vtrt")
        facts = {"estimated_s": estimates[precision]} if precision in estimates else {}
        items.append(bundle.Item(path, "engine", precision, "sm86", facts=facts))
    found = candidates.candidates(
        bundle.write(tmp_path / "engines", SPEC, items, golden_inputs=golden_inputs()), "auto", "auto"
    )
    assert [one.artefact.precision for one in found] == expected


def test_unknown_devices_and_precisions(made):
    with pytest.raises(UsageError, match="unknown device 'cup'; expected auto, .*; do: did you mean 'cpu'"):
        load(made, device="cup")
    with pytest.raises(UsageError, match="has no artefact in 'fp16'; expected auto, fp32, int8"):
        load(made, precision="fp16")


def test_a_tampered_artefact_is_not_loaded_and_no_other_instead(made, tmp_path):
    copy = shutil.copytree(made.folder, tmp_path / "copy")
    path = copy / "onnx/colours-int8.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"onnx/colours-int8\.onnx was changed"):
        load(copy, device="ort", precision="int8")


NAN = golden_inputs(1)["input"]
NAN[0, 0, 0, 0] = np.nan
BAD = {
    "NaN": NAN,
    "another size": np.zeros((1, 3, SIDE, SIDE + 1), np.float32),
    "float64": np.zeros((1, 3, SIDE, SIDE)),
    "NHWC": np.zeros((1, SIDE, SIDE, 3), np.float32),
    "no batch": np.zeros((3, SIDE, SIDE), np.float32),
    "text": "no/such/file.png",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_leaves_the_model_usable(case, model):
    with pytest.raises(DataError):
        model(BAD[case])
    assert model(picture("red")).top(1)[0].label == "red"


def test_a_closed_model_says_so(made):
    model = load(made, threads=1)
    model.close()
    with pytest.raises(RunError, match="closed"):
        model(picture("red"))
