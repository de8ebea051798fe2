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
    theirs = {normalise(name): name for name in torchvision.models.list_models(module=torchvision.models)}
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
            module, origin = torchvision.models.get_model(there, weights=None, **options), f"torchvision {there}"
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


def record(module, origin, input_shape):
    params = sum(parameter.numel() for parameter in module.parameters())
    row = {"origin": origin, "params": params, "keys": keys_digest(module.state_dict())}
    if params <= BIGGEST:
        fill(module)
        side = next((side for key, side in SIDES.items() if key in origin), SIDE)
        x, wide = image((input_shape[0], side, side)), origin.endswith(AMPLIFY)
        out = module.double()(x.double())[0] if wide else module(x)[0].double()
        row |= {"float64": True} if wide else {}
        row |= {
            "side": side,
            "output": [float(f"{value:.9g}") for value in out[::101].tolist()],
            "norm": out.norm().item(),
        }
    return row


if __name__ == "__main__":
    main()
