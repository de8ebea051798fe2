"""Calibration images are also seen disturbed: with noise, partly covered, never beyond black and white."""

import numpy as np

from edgesmith.optimize.calibration.samples import AugmentedSamples, Samples


def photographs(count=40):
    """Smooth images whose channels have different blacks and whites."""
    draw = np.random.default_rng(3)
    images = draw.uniform(-1, 1, (count, 3, 5, 5)).repeat(8, 2).repeat(8, 3) * [[[[1.0]], [[2.0]], [[3.0]]]]
    return images.astype(np.float32)


def disturbed(images, noise=0.25, cover=0.3, batch=8):
    batches = [images[at : at + batch] for at in range(0, len(images), batch)]
    seen = AugmentedSamples(Samples(batches, (None, 3, 40, 40)), noise, cover)
    whole = np.concatenate(list(seen))
    clean = np.array([(whole == image).all(axis=(1, 2, 3)).any() for image in images])
    assert clean.all()
    kept = [image for image in whole if not (images == image).all(axis=(1, 2, 3)).any()]
    return np.array(kept).reshape(-1, *images.shape[1:])


def covered(image):
    """Say whether each channel is even in one and the same rectangle of 12x12."""
    from numpy.lib.stride_tricks import sliding_window_view

    windows = sliding_window_view(image, (12, 12), axis=(1, 2))
    return bool((np.ptp(windows, axis=(3, 4)) < 1e-4).all(axis=0).any())


def test_every_image_has_a_noisy_copy_within_its_black_and_white():
    images = photographs()
    noisy = disturbed(images, cover=0)
    assert len(noisy) == len(images)
    assert (noisy.min(axis=(2, 3)) >= images.min(axis=(2, 3))).all()
    assert (noisy.max(axis=(2, 3)) <= images.max(axis=(2, 3))).all()
    spread = (noisy - images).std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
    assert (spread > 0.12).all()
    assert (spread < 0.25).all()


def test_about_half_of_them_are_covered():
    noisy = disturbed(photographs(), noise=1e-6)
    share = np.mean([covered(image) for image in noisy])
    assert 0.25 < share < 0.75
    assert not any(covered(image) for image in disturbed(photographs(), noise=1e-6, cover=0))


def test_what_happens_to_an_image_does_not_depend_on_the_batches():
    images = photographs()
    np.testing.assert_array_equal(disturbed(images, batch=8), disturbed(images, batch=5))


def test_without_noise_nothing_is_added():
    images = photographs()
    assert len(disturbed(images, noise=0)) == 0


def test_a_draw_holds_clean_and_disturbed_images():
    images = photographs()
    seen = AugmentedSamples(Samples([images], (None, 3, 40, 40)), 0.25, 0.3)
    drawn = seen.pick(20)
    clean = [(images == image).all(axis=(1, 2, 3)).any() for image in drawn]
    assert len(drawn) == 20
    assert sum(clean) == 10
