"""Record what torchvision and timm say about the networks that they share with us: tests/data/zoo_reference.json.

Run where both are installed: python tests/support/record_zoo.py [NAME...]; names add to the file. The tests compare
with the file and need neither.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from seeded import fill, image, keys_digest

OUT = Path(__file__).resolve().parents[1] / "data" / "zoo_reference.json"
RAW = ("bbox_regression", "cls_logits", "bbox_ctrness")  # a detector's raw outputs, in the order of ours
OUTPUTS = 80  # numbers of an output that are kept, where it has many
AMPLIFY = ("efficientnet_v2_s",)  # these weights amplify a float32's last digit to half of the output
SIDES = {"inception": 96, "vit": 224, "nasnet": 96}
BIGGEST, SIDE = 150_000_000, 64


def main() -> None:
    import timm
    import torchvision

    from edgesmith.models import catalog
    from edgesmith.runtime.common.plugins import normalise

    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    theirs = {normalise(name): name for name in torchvision.models.list_models()}
    timms = {normalise(name): name for name in timm.list_models()}
    found = {"torchvision": torchvision.__version__, "timm": timm.__version__, "networks": {}}
    if sys.argv[1:]:
        found["networks"] = json.loads(OUT.read_text())["networks"]
    for name in sys.argv[1:] or catalog.network_names():
        entry = catalog.find_network(name)
        spellings = [normalise(word) for word in (name, *entry.aliases)]
        there = next((theirs[word] for word in spellings if word in theirs), None)
        # timm has some networks twice; the aliases name the layout whose keys ours are.
        other = next((timms[word] for word in reversed(spellings) if word in timms), None)
        if there and name not in ("alexnet_modified",):
            options = {"init_weights": False} if there in ("googlenet", "inception_v3") else {}
            if entry.row.get("task") in ("detect", "segment"):
                options = {"weights_backbone": None}
            module, origin = torchvision.models.get_model(there, weights=None, **options), f"torchvision {there}"
        elif name in ("retinanet_resnet18", "fcos_resnet18"):
            module, origin = on_resnet18(name), f"torchvision's class, {name}"
        elif other and entry.row.get("keys") == "timm":
            module, origin = timm.create_model(other, pretrained=False), f"timm {other}"
        elif entry.row.get("keys") == "efficientnet-lite-pytorch":
            module, origin = lite(name.replace("_", "-"), SIDE), f"efficientnet-lite-pytorch {name}"
        else:
            continue
        found["networks"][name] = record(module.eval(), origin, entry.input_shape)
        sys.stderr.write(f"{name} {origin}\n")
    OUT.write_text(json.dumps(found, indent=1) + "\n")


def lite(name, side):
    """Return a network of efficientnet-lite-pytorch; its padding is for one size of image."""
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name(name, image_size=side)


def on_resnet18(name):
    """Return torchvision's detector on its pyramid on its ResNet-18."""
    from torchvision.models import detection, resnet18
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    backbone = detection.backbone_utils._resnet_fpn_extractor(
        resnet18(weights=None), 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
    )
    return (detection.FCOS if "fcos" in name else detection.RetinaNet)(backbone, 91)


def answer(module, x):
    """Return all numbers of a network's outputs for one image, in one row: of a detector what its head returns."""
    if hasattr(module, "head") and hasattr(module, "anchor_generator"):
        outputs = module.head(list(module.backbone(x).values()))
        return torch.cat([outputs[name].flatten() for name in RAW if name in outputs])
    out = module(x)
    return (out["out"] if isinstance(out, dict) else out).flatten()


def record(module, origin, input_shape):
    params = sum(parameter.numel() for parameter in module.parameters())
    row = {"origin": origin, "params": params, "keys": keys_digest(module.state_dict())}
    if params <= BIGGEST:
        fill(module)
        side = next((side for key, side in SIDES.items() if key in origin), SIDE)
        x, wide = image((input_shape[0], side, side)), origin.endswith(AMPLIFY)
        out = answer(module.double(), x.double()) if wide else answer(module, x).double()
        step = max(101, out.numel() // OUTPUTS)
        row |= {"float64": True} if wide else {}
        row |= {"step": step} if step != 101 else {}
        row |= {
            "side": side,
            "output": [float(f"{value:.9g}") for value in out[::step].tolist()],
            "norm": out.norm().item(),
        }
    return row


if __name__ == "__main__":
    main()
