"""Networks of timm and torchvision by name, with their own preprocessing and labels; both packages are optional."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...runtime.common.packages import need
from ...runtime.common.plugins import did_you_mean
from ...runtime.errors import ModelError, NotAvailable, UsageError
from .facts import Facts
from .source import NetworkSource

if TYPE_CHECKING:
    import torch


def build(source: NetworkSource, arguments: dict[str, Any], pretrained: bool, facts: Facts) -> torch.nn.Module:
    """Build a network of a package in eval mode, and add the package's facts about its input.

    Args:
        source: Of the kind "timm" or "torchvision".
        arguments: Arguments of the package's function.
        pretrained: Download the package's weights.
        facts: Added to.

    Raises:
        UsageError: The package has no such network, or does not accept the arguments.
        NotAvailable: The package is not installed, or its weights cannot be downloaded.
    """
    make = {"timm": _timm, "torchvision": _torchvision}[source.kind]
    try:
        return make(source.place, arguments, pretrained, facts)
    except (OSError, ConnectionError) as error:
        got = " ".join(str(error).split())[:200]
        do = "fetch the file elsewhere and give --weights FILE, or take --weights random"
        raise NotAvailable(f"the weights of {source.place} cannot be fetched", got=got, do=do) from error
    except TypeError as error:
        raise UsageError(f"the arguments do not fit {source.place}", got=str(error)[:200], do="see --arg") from error
    except RuntimeError as error:
        raise ModelError(f"{source.kind} cannot make {source.place}", got=" ".join(str(error).split())[:200]) from error


def _timm(name: str, arguments: dict[str, Any], pretrained: bool, facts: Facts) -> torch.nn.Module:
    timm = need("timm")
    if not timm.is_model(name):
        do = did_you_mean(name.partition(".")[0], timm.list_models()) or "see timm.list_models()"
        raise UsageError(f"timm has no network {name!r}", do=do)
    module: torch.nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    facts.add("timm", name=name, weights="timm" if pretrained else None)
    return module.eval()


def _torchvision(name: str, arguments: dict[str, Any], pretrained: bool, facts: Facts) -> torch.nn.Module:
    models = need("torchvision.models")
    if name not in models.list_models():
        do = did_you_mean(name, models.list_models()) or "see torchvision.models.list_models()"
        raise UsageError(f"torchvision has no network {name!r}", do=do)
    weights = models.get_model_weights(name).DEFAULT
    # Without weights, the backbone's weights are omitted too.
    none = {} if pretrained else {"weights_backbone": None} if "segmentation" in type(weights).__module__ else {}
    module: torch.nn.Module = models.get_model(name, weights=weights if pretrained else None, **none, **arguments)
    facts.add("torchvision", name=name, weights=str(weights) if pretrained else None)
    facts.add("torchvision's weights", **_preset(weights), labels=tuple(weights.meta.get("categories", ())) or None)
    return module.eval()


def _preset(weights: Any) -> dict[str, Any]:
    """Return the preprocessing of a `Weights.transforms()` as facts."""
    transforms = weights.transforms()
    size, crop = getattr(transforms, "resize_size", None), getattr(transforms, "crop_size", None)
    interpolation = getattr(getattr(transforms, "interpolation", None), "value", None)
    side = crop or size
    return {
        "size": (side[0], side[-1]) if side else None, "resize": size[0] if crop and size else 0 if side else None,
        "interpolation": interpolation, "mean": tuple(getattr(transforms, "mean", ())) or None,
        "std": tuple(getattr(transforms, "std", ())) or None,
    }  # fmt: skip
