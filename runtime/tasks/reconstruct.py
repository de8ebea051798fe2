"""Reconstruction of an image, as by an autoencoder: the first output is the input image again, (N, channels, H, W).

Decoder: `range`, what the values are: "input" (the default), "unit", "signed" or "byte"; see `_pictures.as_picture`.
"""

from .super_resolve import SuperResolve


class Reconstruct(SuperResolve):
    """The picture; PSNR and SSIM against the image itself, as the network saw it."""

    truth = "image"


TASK = Reconstruct()
