"""OpenCV's and torch's resizing in numpy against the libraries themselves, over random sizes."""

import contextlib

import numpy as np
import pytest

from edgesmith.runtime.images.resize import INTERPOLATIONS, PILLOW, resize

# Method -> share of values that may differ, each by one grey level at most.
OPENCV = {"opencv-linear": 0, "opencv-area": 0, "opencv-cubic": 5e-4}
TORCH = {
    "torch-bilinear": 5e-4, "torch-bicubic": 5e-4, "torch-bilinear-antialias": 5e-4, "torch-bicubic-antialias": 5e-4,
}  # fmt: skip
PAIRS = [((64, 64), (32, 32)), ((48, 90), (16, 30)), ((90, 64), (30, 16)), ((5, 7), (64, 64)), ((120, 160), (75, 96))]


def cases(seed, count=25):
    rng = np.random.default_rng(seed)
    drawn = [(tuple(rng.integers(2, 130, 2).tolist()), tuple(rng.integers(2, 130, 2).tolist())) for _ in range(count)]
    for shape, size in (*PAIRS, *drawn):
        yield rng.integers(0, 256, (*shape, 3), dtype=np.uint8), size


def with_opencv(image, size, method):
    cv2 = pytest.importorskip("cv2")
    flag = {"opencv-linear": cv2.INTER_LINEAR, "opencv-area": cv2.INTER_AREA, "opencv-cubic": cv2.INTER_CUBIC}[method]
    return cv2.resize(image, size[::-1], interpolation=flag)


@contextlib.contextmanager
def own_code():
    """OpenCV's own code: some builds give cubic to Intel's IPP."""
    cv2 = pytest.importorskip("cv2")
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        cv2.ipp.setUseIPP(before)


def with_torch(image, size, method):
    torch = pytest.importorskip("torch")
    values = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float()
    mode, antialias = method.removeprefix("torch-").removesuffix("-antialias"), method.endswith("-antialias")
    values = torch.nn.functional.interpolate(values, size=size, mode=mode, antialias=antialias, align_corners=False)
    return values.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for busy cores take far longer than the work."""
    restore = []
    with contextlib.suppress(ImportError):
        import cv2

        restore.append((cv2.setNumThreads, cv2.getNumThreads()))
    with contextlib.suppress(ImportError):
        import torch

        restore.append((torch.set_num_threads, torch.get_num_threads()))
    for change, _ in restore:
        change(1)
    yield
    for change, count in restore:
        change(count)


def shares(ours, theirs, drawn=25):
    """Return the largest difference, and the share of values that differ, over all cases."""
    most = different = count = 0
    for image, size in cases(3, drawn):
        gap = np.abs(ours(image, size).astype(int) - theirs(image, size))
        most, different, count = max(most, int(gap.max())), different + int((gap > 0).sum()), count + gap.size
    return most, different / count


@pytest.mark.parametrize("method", OPENCV)
def test_it_is_opencvs(method):
    with own_code():
        most, share = shares(lambda image, size: resize(image, size, method), lambda *one: with_opencv(*one, method))
    assert most <= (OPENCV[method] > 0)
    assert share <= OPENCV[method]


def test_cubic_is_within_a_level_of_what_this_build_does():
    most, share = shares(
        lambda image, size: resize(image, size, "opencv-cubic"), lambda *one: with_opencv(*one, "opencv-cubic")
    )
    assert most <= 1
    assert share < 0.08


@pytest.mark.parametrize("method", TORCH)
def test_it_is_torchs(method):
    most, share = shares(lambda image, size: resize(image, size, method), lambda *one: with_torch(*one, method))
    assert most <= 1
    assert share <= TORCH[method]


@pytest.mark.parametrize("method", [*OPENCV, *TORCH])
def test_the_comparison_rejects_another_method(method):
    """Each library's answer differs from that of every other way by more than its tolerance."""
    theirs = with_opencv if method in OPENCV else with_torch
    for other in INTERPOLATIONS:
        if other != method and other.removesuffix("-antialias") != method.removesuffix("-antialias"):
            with own_code():
                most, share = shares(lambda image, size, other=other: resize(image, size, other),
                                     lambda image, size: theirs(image, size, method), 4)  # fmt: skip
            assert most > 1 or share > 1e-2, other


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_an_even_image_stays_as_it_is_and_so_does_its_own_size(method):
    rng = np.random.default_rng(0)
    for image, size in cases(9, 6):
        even = np.full_like(image, rng.integers(0, 256))
        assert (resize(even, size, method) == even[0, 0, 0]).all()
        assert resize(image, size, method).shape == (*size, 3)
        assert np.array_equal(resize(image, image.shape[:2], method), image)


@pytest.mark.parametrize("method", [name for name in INTERPOLATIONS if name not in PILLOW])
def test_one_pixel_and_one_colour(method):
    for shape, size in (((1, 1), (5, 7)), ((9, 1), (1, 4)), ((1, 6), (3, 1)), ((40, 30), (1, 1))):
        image = np.random.default_rng(1).integers(0, 256, (*shape, 1), dtype=np.uint8)
        out = resize(image, size, method)
        assert (out.shape, out.dtype) == ((*size, 1), np.uint8)
