"""The user's facts about a network: options of `export` and `spec`, and the file of `--spec`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.common.files import existing_file
from ...runtime.common.packages import need
from ...runtime.common.plugins import did_you_mean
from ...runtime.common.size_range import SizeRange, parse_range
from ...runtime.errors import UsageError
from ...runtime.images.preprocess import CHANNELS
from ...runtime.images.resize import INTERPOLATIONS
from ...runtime.outputs import SPEC_HEAD
from ...runtime.spec import FITS
from ...runtime.tasks import names as task_names
from .facts import Fact, Facts
from .input_ranges import read_ranges

# Table of a spec file -> key -> fact.
TABLES = {
    "network": {"name": "name", "task": "task", "labels": "labels", "classes": "num_classes"},
    "input": {"name": "input_name", "size": "size", "height": "height", "width": "width",
              "layout": "layout", "dtype": "dtype"},
    "preprocess": {"fit": "fit", "resize": "resize", "fill": "fill", "enlarge": "enlarge",
                   "interpolation": "interpolation", "channels": "channels", "mean": "mean", "std": "std"},
    "output": {"names": "output_names", "scores": "scores"},
}  # fmt: skip
RANGES = "ranges"  # another table: input -> axis -> range
DECODER = "decoder"  # another table: the settings of the task's decoder, which the task checks
LISTS = ("labels", "size", "mean", "std", "output_names")
NUMBERS = ("size", "mean", "std", "resize", "fill", "num_classes")


@dataclass(frozen=True)
class SpecOptions:
    """The user's facts about the input and output, as on the command line; "" means unknown.

    Attributes:
        spec: A TOML file, as `edgesmith spec` writes it.
        size: Height and width: "320", or "320x480".
        shape: Shapes of inputs with dynamic axes: "1x3x320x320", or "a=1x3x32x32,b=1x4".
        mean: One number, or one per colour; values above 1 refer to pixels from 0 to 255, and then `std` does too.
        std: The same.
        channels: "RGB", "BGR" or "GRAY".
        resize: The shorter side in pixels before the crop; "stretch" resizes the whole image to the input's size.
        fit: "crop", "stretch", "letterbox" or "pad"; see `Preprocess`.
        fill: The padding's pixel value for letterbox and pad, 0 to 255: one number, or one per colour.
        interpolation: "bilinear", "bicubic", "opencv-linear", ...; see `resize.INTERPOLATIONS`.
        labels: A text file with one label per line, or the labels.
        layout: "NCHW" or "NHWC".
        task: "classify", "features", ...
        args: Arguments of the factory: "width=0.5".
    """

    spec: Path | None = None
    size: str = ""
    shape: str = ""
    mean: str = ""
    std: str = ""
    channels: str = ""
    resize: str = ""
    fit: str = ""
    fill: str = ""
    interpolation: str = ""
    labels: Path | tuple[str, ...] | None = None
    layout: str = ""
    task: str = ""
    args: tuple[str, ...] = ()

    def facts(self) -> Facts:
        """Return the facts of the file and the options; the file has priority.

        Raises:
            UsageError: An invalid word, number or file.
        """
        facts = Facts()
        if self.spec is not None:
            facts.add(f"--spec {self.spec.name}", **read_spec_file(self.spec))
        for name, value in (("size", self.image_size), ("labels", self._labels())):
            facts.add(f"--{name}", **{name: value})
        fit, resize = _word("fit", self.fit, FITS), self._shorter_side
        facts.add("--fit" if fit else "--resize", **_fitting("--fit", "--resize", fit, resize))
        facts.add("--fill", fill=_fill("--fill", _numbers("fill", self.fill)))
        for name, words in (("channels", tuple(CHANNELS)), ("interpolation", INTERPOLATIONS),
                            ("layout", ("NCHW", "NHWC")), ("task", task_names())):  # fmt: skip
            facts.add(f"--{name}", **{name: _word(name, getattr(self, name), words)})
        scaled = scaled_to_one(_numbers("mean", self.mean), _numbers("std", self.std))
        for name, numbers in zip(("mean", "std"), scaled, strict=True):
            facts.add(f"--{name}", **{name: numbers})
        return facts

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width, None if unknown."""
        match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", self.size.strip().lower())
        if self.size and match is None:
            raise UsageError("cannot read the size", got=repr(self.size), expected="320, or HEIGHTxWIDTH: 320x480")
        return (int(match[1]), int(match[2] or match[1])) if match else None

    @property
    def _shorter_side(self) -> int | None:
        if self.resize == "stretch":
            return 0
        if self.resize and not re.fullmatch(r"[1-9]\d{0,4}", self.resize):
            expected = "the shorter side in pixels, or stretch"
            raise UsageError("cannot read --resize", got=repr(self.resize), expected=expected)
        return int(self.resize) if self.resize else None

    def _labels(self) -> tuple[str, ...] | None:
        return self.labels if self.labels is None or isinstance(self.labels, tuple) else read_labels(self.labels)


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the lines of a text file, without empty lines at the end.

    Raises:
        UsageError: It does not exist, or is not text.
    """
    try:
        lines = existing_file(path, "file of labels").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}", got=str(error)[:200], expected="a label on each line") from error
    labels = tuple(line.strip() for line in lines)
    while labels and not labels[-1]:
        labels = labels[:-1]
    if not labels or not all(labels):
        raise UsageError(f"{path} has a line without a label", expected="a label on each line")
    return labels


def read_spec_file(path: Path) -> dict[str, Any]:
    """Return the facts in a TOML file: the tables network, input, preprocess, output, decoder, ranges.

    Raises:
        UsageError: It does not exist, is not TOML, or has an unknown key or value.
    """
    toml = need("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        values = toml.loads(existing_file(path, "spec").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        got = " ".join(str(error).split())[:200]
        raise UsageError(f"cannot read {path}", got=got, expected="TOML, as `edgesmith spec` writes it") from error
    facts: dict[str, Any] = {}
    if isinstance(ranges := values.pop(RANGES, {}), dict) and ranges:
        facts[RANGES] = read_ranges(ranges)
    if isinstance(decoder := values.pop(DECODER, {}), dict) and decoder:
        facts[DECODER] = _tuples(decoder)
    for table, content in values.items():
        keys = TABLES.get(table)
        if keys is None or not isinstance(content, dict):
            known = [*TABLES, DECODER, RANGES]
            do = did_you_mean(table, known) or "see `edgesmith spec --help`"
            raise UsageError(f"{path} has an unknown table", got=f"[{table}]"[:80], expected=", ".join(known), do=do)
        for key, value in content.items():
            if key not in keys:
                do = did_you_mean(key, list(keys)) or "leave it out"
                got = f"{table}.{key}"[:80]
                raise UsageError(f"{path} has an unknown key", got=got, expected=", ".join(keys), do=do)
            facts[keys[key]] = _value(path, f"{table}.{key}", keys[key], value)
    if isinstance(facts.get("labels"), str):
        facts["labels"] = read_labels(path.parent / facts["labels"])
    resize = 0 if facts.get("resize") == "stretch" else facts.get("resize")
    for fact, words in (("fit", FITS), ("interpolation", INTERPOLATIONS)):
        if fact in facts and facts[fact] not in words:
            got, do = repr(facts[fact])[:80], did_you_mean(facts[fact], words) or "choose one of these"
            raise UsageError(f"preprocess.{fact} in {path} cannot be used", got=got, expected=", ".join(words), do=do)
    facts |= _fitting(f"{path}: preprocess.fit", "preprocess.resize", facts.get("fit"), resize)
    facts |= {name: parse_range(facts[name]) for name in ("height", "width") if name in facts}
    fill = facts.get("fill")
    facts["fill"] = _fill(f"preprocess.fill in {path}", fill if isinstance(fill, tuple | None) else (fill,))
    return facts


def _fitting(fit_name: str, resize_name: str, fit: str | None, resize: int | None) -> dict[str, Any]:
    """Return both facts.

    Raises:
        UsageError: They contradict each other.
    """
    if fit is not None and resize is not None and (resize > 0) != (fit == "crop") and (resize or fit == "crop"):
        got = f"{fit_name} {fit}, {resize_name} {resize or 'stretch'}"
        raise UsageError(
            "the shorter side does not go with the fit", got=got, expected="a shorter side with crop alone"
        )
    return {"fit": fit, "resize": resize}


def _fill(name: str, numbers: tuple[float, ...] | None) -> float | tuple[float, ...] | None:
    if numbers is not None and not all(0 <= number <= 255 for number in numbers):
        raise UsageError(f"cannot use {name}", got=", ".join(map(str, numbers)), expected="pixels, 0 to 255")
    return numbers if numbers is None or len(numbers) > 1 else numbers[0]


def _value(path: Path, key: str, fact: str, value: Any) -> Any:
    if fact == "enlarge":
        if isinstance(value, bool):
            return value
        raise UsageError(f"{key} in {path} cannot be used", got=repr(value)[:80], expected="true or false")
    is_list = isinstance(value, list)
    items = value if is_list else [value]
    kind: Any = (int, float) if fact in NUMBERS else str
    word = (fact == "labels" and isinstance(value, str)) or (fact == "resize" and value == "stretch")
    fits = all(isinstance(item, kind) and not isinstance(item, bool) for item in items)
    fits = fits and (is_list == (fact in LISTS) or (fact == "fill" and bool(items)))
    if not fits and not word:
        expected = f"{'numbers' if fact in NUMBERS else 'texts'} in a list" if fact in LISTS else "one value"
        raise UsageError(f"{key} in {path} cannot be used", got=repr(value)[:80], expected=expected)
    return tuple(value) if is_list else value


def _word(name: str, word: str, known: Sequence[str]) -> str | None:
    match = {one.lower(): one for one in known}.get(word.lower())
    if word and match is None:
        do = did_you_mean(word, known) or "choose one of these"
        raise UsageError(f"unknown --{name} {word!r}", expected=", ".join(known), do=do)
    return match


def _numbers(name: str, text: str) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(word) for word in text.split(",")) if text else None
    except ValueError:
        numbers = ()
    if numbers is not None and (not numbers or not all(abs(number) < 1e6 for number in numbers)):
        raise UsageError(f"cannot read --{name}", got=repr(text), expected="numbers: 0.485,0.456,0.406")
    return numbers


def scaled_to_one(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return both for pixels from 0 to 1; if a number is above 1, both refer to pixels from 0 to 255."""
    divisor = 255.0 if any(abs(number) > 1 for number in (*(mean or ()), *(std or ()))) else 1.0
    one, two = (None if value is None else tuple(number / divisor for number in value) for value in (mean, std))
    return one, two


def spec_text(facts: Mapping[str, Fact]) -> str:
    """Return facts, by name, as a TOML file with a comment that names the source of each."""
    lines = [
        f"{SPEC_HEAD} Correct what is wrong, above all what is a guess,",
        "# and give it with `--spec FILE`. docs/how-to/own-onnx.md explains it.",
    ]
    for table, keys in TABLES.items():
        rows = [(key, facts[name]) for key, name in keys.items() if name in facts]
        if rows:
            lines += ["", f"[{table}]"]
        for key, fact in rows:
            lines.append(f"{key} = {_toml(fact.value)}  # {fact.origin}")
    if DECODER in facts:
        settings, origin = facts[DECODER].value, facts[DECODER].origin
        lines += ["", f"[{DECODER}]  # {origin}", *(f"{key} = {_toml(value)}" for key, value in settings.items())]
    if RANGES in facts:
        ranges, origin = facts[RANGES].value, facts[RANGES].origin
        lines += ["", f"[{RANGES}]", *(f"{_toml(one.input)}.{one.axis} = {_toml(one)}  # {origin}" for one in ranges)]
    return "\n".join(lines) + "\n"


def _tuples(value: Any) -> Any:
    """Return lists as tuples, also inside tables."""
    if isinstance(value, dict):
        return {key: _tuples(one) for key, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _toml(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, (str, SizeRange)):
        import json

        return json.dumps(str(value), ensure_ascii=True).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
