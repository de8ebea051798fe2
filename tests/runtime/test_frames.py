"""Frames as people have them: OpenCV's BGR, torch tensors, channels first, batches; what is ambiguous is refused."""

import numpy as np
import pytest
from PIL import Image

from edgesmith.runtime import load
from edgesmith.runtime.errors import DataError
from edgesmith.runtime.images.preprocess import apply, as_array, as_image
from edgesmith.runtime.serving.reload import ReloadingModel
from support.bundles import SPEC, colour_bundle, picture

RED = picture("red")
BGR = np.ascontiguousarray(RED[..., ::-1])


class Tensor:
    """What of a torch tensor the runtime uses; torch itself is not imported for it."""

    def __init__(self, values, problem=None):
        self.values, self.problem, self.steps = values, problem, []

    def detach(self):
        self.steps.append("detach")
        return self

    def cpu(self):
        self.steps.append("cpu")
        return self

    def numpy(self):
        if self.problem:
            raise self.problem
        assert self.steps == ["detach", "cpu"]
        return self.values


# what it is -> the image, the order of its colours
IMAGES = {
    "an array": (RED, "RGB"),
    "OpenCV's frame": (BGR, "BGR"),
    "channels first": (RED.transpose(2, 0, 1), "RGB"),
    "channels first, BGR": (BGR.transpose(2, 0, 1), "BGR"),
    "a tensor, channels last": (Tensor(RED), "RGB"),
    "a tensor, channels first": (Tensor(RED.transpose(2, 0, 1)), "RGB"),
    "a tensor, BGR": (Tensor(BGR), "BGR"),
    "a Pillow image, which has its own order": (Image.fromarray(RED), "BGR"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_one_image_in_every_form(case):
    image, channels = IMAGES[case]
    assert np.array_equal(as_image(image, channels), RED)


def test_a_file_has_its_own_order(tmp_path):
    Image.fromarray(RED).save(tmp_path / "red.png")
    assert np.array_equal(as_image(tmp_path / "red.png", "BGR"), RED)


@pytest.mark.parametrize("shape", [(30, 20), (30, 20, 1), (1, 30, 20)])
def test_grey_is_grey_in_every_form(shape):
    grey = RED[:30, :20, 0].reshape(shape)
    for channels in ("RGB", "BGR"):
        assert np.array_equal(as_image(grey, channels), RED[:30, :20, :1].repeat(3, axis=2))


def test_a_batch_is_its_images():
    frames = np.stack([RED, picture("blue")])
    expected = apply(list(frames), SPEC)
    assert np.array_equal(apply(frames, SPEC), expected)
    assert np.array_equal(apply(frames.transpose(0, 3, 1, 2), SPEC), expected)
    assert np.array_equal(apply(frames[..., ::-1], SPEC, channels="BGR"), expected)
    assert not np.array_equal(apply(frames, SPEC, channels="BGR"), expected)


def test_torchs_own_tensors():
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(RED.transpose(2, 0, 1).copy())
    assert np.array_equal(as_image(tensor), RED)
    assert np.array_equal(as_array(torch.ones(2, requires_grad=True)), [1, 1])
    with pytest.raises(DataError, match="this tensor cannot be read; got .*BFloat16"):
        as_array(torch.ones(2, dtype=torch.bfloat16))


BAD = {
    "two ways": (np.zeros((3, 40, 3), np.uint8), "RGB", r"two ways; got uint8 \(3, 40, 3\); expected \(height"),
    "a tensor in two ways": (Tensor(np.zeros((1, 40, 3), np.uint8)), "RGB", "two ways"),
    "no colours": (np.zeros((40, 40, 40), np.uint8), "RGB", r"expected uint8 \(height, width, 3\) or \(3"),
    "float": (Tensor(np.zeros((3, 40, 40), np.float32)), "RGB", "this array is not an image; got float32"),
    "an order nobody has": (RED, "GBR", "unknown order of the colours; got 'GBR'; expected RGB or BGR"),
    "a sparse tensor": (Tensor(None, RuntimeError("layout\nsparse")), "RGB", "cannot be read; got layout sparse"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_clear_is_refused(case):
    image, channels, message = BAD[case]
    with pytest.raises(DataError, match=message):
        as_image(image, channels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("frames") / "colours").source


def test_a_model_takes_them_all(folder):
    with load(folder, device="ort", threads=1) as model:
        right = model(RED)
        assert right.top(1)[0].label == "red"
        assert model(BGR).top(1)[0].label == "blue"

        def same(answer):
            return np.array_equal(answer.outputs["output"], right.outputs["output"])

        assert same(model(BGR, channels="BGR"))
        assert same(model(Tensor(RED.transpose(2, 0, 1))))
        assert all(map(same, model([BGR, Tensor(BGR)], channels="BGR")))
        assert all(map(same, model(np.stack([RED, RED]))))
        assert all(map(same, model(Tensor(np.stack([RED, RED])))))
        batch = apply([RED], SPEC)
        assert same(model(batch)[0])
        assert same(model(Tensor(batch))[0])
        assert model(np.zeros((0, 9, 9, 3), np.uint8)) == model([]) == []
        with pytest.raises(DataError, match="'BGR' does not fit a float batch; expected uint8 images"):
            model(batch, channels="BGR")
    with ReloadingModel(folder, device="ort", threads=1) as model:
        assert model(BGR, channels="BGR").top(1)[0].label == "red"
