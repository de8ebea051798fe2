"""The settings by which an image becomes a network's input: plain data of a ModelSpec."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

LONGEST_SIDE = 1 << 16
FITS = ("crop", "stretch", "letterbox", "pad")
FILLED = ("letterbox", "pad")  # which leave a part of the input beside the image
GREY = 114  # what Ultralytics fills with


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of an image: brought to the input's size, then scaled and normalised for each channel.

    `crop` is the (height, width) of the network's input in pixels. `fit` says how an image gets there:

    - "crop": its shorter side becomes `resize` pixels, its ratio is kept, the centre is cut out, as in torchvision;
    - "stretch": both sides are resized, whatever the ratio;
    - "letterbox": it is scaled, its ratio kept, to fit inside, centred, and the rest is filled, as Ultralytics does;
    - "pad": the same, but in the upper left corner, filled on the right and below;
    - "": "crop", or "stretch" where `resize` is 0, which means something for these two alone.

    `fill` is the pixel of the filled part, 0 to 255, one number or one for each channel of the network; with `enlarge`
    False, letterbox and pad leave a smaller image at its size. `interpolation` is one of `resize.INTERPOLATIONS`.
    Then x = (pixel / 255 - mean) / std for each channel.
    """

    crop: tuple[int, int] = (224, 224)
    resize: int = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: str = "RGB"
    fit: str = ""
    fill: float | tuple[float, ...] = GREY
    enlarge: bool = True

    @property
    def fits(self) -> str:
        """How an image is brought to the input's size, one of FITS."""
        return self.fit or ("crop" if self.resize else "stretch")

    @property
    def fills(self) -> tuple[float, ...]:
        """The pixel of the filled part for each channel of the network, 0 to 255."""
        return self.fill if isinstance(self.fill, tuple) else (self.fill,) * len(self.mean)

    @property
    def is_early(self) -> bool:
        """Whether manifests before format 4 could say it."""
        return not set(self.to_dict()) & {"fit", "fill", "enlarge"} and "-" not in self.interpolation

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; of `fit`, `fill` and `enlarge` those that differ from what they are without a word."""
        values, silent = asdict(self), {"fit": "", "fill": GREY, "enlarge": True}
        return {key: value for key, value in values.items() if key not in silent or value != silent[key]}

    def check(self) -> None:
        """Check the types of the fields.

        Raises:
            TypeError: A field has the wrong type.
        """
        numbers = (self.resize, *self.mean, *self.std, *self.fills)
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in numbers):
            raise TypeError(f"resize, mean, std, fill {numbers} are not all numbers")
        if not isinstance(self.resize, int) or not 0 <= self.resize <= LONGEST_SIDE:
            raise TypeError(f"resize {self.resize!r}")
        if len(self.crop) != 2 or len(self.mean) != len(self.std) or not all(0 < value < 1e6 for value in self.std):
            raise TypeError(f"crop {self.crop}, mean {self.mean}, std {self.std}")
        if not (isinstance(self.interpolation, str) and isinstance(self.channels, str)):
            raise TypeError(f"interpolation {self.interpolation!r}, channels {self.channels!r}")
        if self.fit not in ("", *FITS) or not isinstance(self.enlarge, bool):
            raise TypeError(f"fit {self.fit!r}, enlarge {self.enlarge!r}")
        if self.fit == "crop" and not self.resize:
            raise TypeError("fit 'crop' with resize 0, which is no length of a side")
        if len(self.fills) != len(self.mean) or not all(0 <= value <= 255 for value in self.fills):
            raise TypeError(f"fill {self.fill}, not {len(self.mean)} numbers from 0 to 255")
