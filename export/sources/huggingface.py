"""A network from a Hugging Face folder on disk; nothing is downloaded, and no code of the folder is run.

timm's folders (`architecture` in config.json) are built by timm, others (`model_type`) by transformers, or as a network
of the zoo if the weights fit it. The weights are read here: safetensors, or a pickle without code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models import catalog, checkpoints
from ...runtime.common.packages import need
from ...runtime.errors import ModelError, NotAvailable, UsageError
from .facts import Facts
from .module_facts import add_timm_config

if TYPE_CHECKING:
    import torch

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}  # Pillow's numbers
WARPED = 384  # ConvNeXt's processor stretches images to this size or a larger one, and crops smaller ones
# Residual blocks of each stage, whether they are bottlenecks -> network of the zoo.
RESNETS = {((2, 2, 2, 2), False): "resnet18", ((3, 4, 6, 3), False): "resnet34", ((3, 4, 6, 3), True): "resnet50",
           ((3, 4, 23, 3), True): "resnet101", ((3, 8, 36, 3), True): "resnet152"}  # fmt: skip


def build(folder: Path, arguments: Mapping[str, Any], own_weights: bool, facts: Facts) -> torch.nn.Module:
    """Build the network of a folder in eval mode, and add the facts of its files.

    Args:
        folder: With config.json, perhaps preprocessor_config.json, and model.safetensors or pytorch_model.bin.
        arguments: Those of the user; there may be none.
        own_weights: Load the folder's weights.
        facts: Added to.

    Raises:
        UsageError: Arguments, no weights, or a network that needs code of the folder.
        ModelError: A file cannot be read, or the weights do not fit.
        NotAvailable: timm or transformers is needed, and is not installed.
    """
    if arguments:
        raise UsageError("such a folder takes no arguments", got=", ".join(arguments), do="leave --arg out")
    config = _read(folder / CONFIG)
    files = (folder / name for name in WEIGHTS if (folder / name).is_file())
    weights = next(files, None) if own_weights else None
    if own_weights and weights is None:
        raise UsageError(
            f"{folder} has no weights", expected=" or ".join(WEIGHTS), do="fetch the file, or give --weights"
        )
    if "auto_map" in config:
        got = f"auto_map in {CONFIG}: its code would be run"
        raise UsageError(f"{folder} needs Python code of its own", got=got, do="export it to ONNX where you trust it")
    try:
        _add_preprocessor(folder, facts)
        make = _timm if "architecture" in config else _typed
        module = make(folder, config, weights, facts)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        got = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError(
            f"the configuration in {folder} cannot be used", got=got, do="fetch the folder again"
        ) from error
    if weights is not None:
        facts.add("the folder; nothing is downloaded, none of its code is run", weights=weights.name)
    return module.eval()


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}", got=" ".join(str(error).split())[:200], expected="JSON") from error
    if not isinstance(values, dict):
        raise ModelError(f"cannot read {path}", got=type(values).__name__, expected="a JSON object")
    return values


def _timm(folder: Path, config: dict[str, Any], weights: Path | None, facts: Facts) -> torch.nn.Module:
    timm, name = need("timm"), config["architecture"]
    if not timm.is_model(name):
        raise UsageError(f"timm has no network {name!r}", got=f"architecture in {folder / CONFIG}", do="update timm")
    arguments = dict(config.get("model_args") or {})
    arguments["num_classes"] = config.get("num_classes", arguments.get("num_classes", 1000))
    module: torch.nn.Module = timm.create_model(name, pretrained=False, **arguments)
    settings = {**(config.get("pretrained_cfg") or config), "label_names": config.get("label_names")}
    add_timm_config(settings, CONFIG, facts)
    return _loaded(module, weights)


def _loaded(module: torch.nn.Module, weights: Path | None) -> torch.nn.Module:
    if weights is not None:
        checkpoints.load_checkpoint(module, checkpoints.read_checkpoint(weights), str(weights))
    return module


def _typed(folder: Path, config: dict[str, Any], weights: Path | None, facts: Facts) -> torch.nn.Module:
    """Return the network of a `model_type`, and add its labels and size."""
    _add_config(config, facts)
    kind = str(config.get("model_type", "none"))
    try:
        transformers = need("transformers")
    except NotAvailable as error:
        module = _zoo(kind, config, weights)
        if module is None:
            raise NotAvailable(
                f"{folder} is of model_type {kind!r}, which transformers builds", got=error.got,
                do="pip install transformers, or export it to ONNX and give that file",
            ) from error  # fmt: skip
        return module
    try:
        settings = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        network = transformers.AutoModelForImageClassification.from_config(settings, trust_remote_code=False)
    except Exception as error:  # of whatever kind: the library's own checks
        got = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        do = "give a classifier of images, or export it to ONNX and give that file"
        raise UsageError(f"transformers cannot build model_type {kind!r} of {folder}", got=got, do=do) from error
    return _with_logits(_loaded(network, weights))


def _zoo(kind: str, config: dict[str, Any], weights: Path | None) -> torch.nn.Module | None:
    """Return a network of the zoo with the folder's weights, if they fit it."""
    depths, bottleneck = tuple(config.get("depths", ())), config.get("layer_type", "bottleneck") == "bottleneck"
    name = {"resnet": RESNETS.get((depths, bottleneck)), "mobilenet_v2": "mobilenetv2"}.get(kind)
    if name is None or weights is None:
        return None
    labels = config.get("id2label") or {}
    try:
        return _loaded(catalog.build_network(name, len(labels) or int(config.get("num_labels", 1000))), weights)
    except ModelError:
        return None


def _with_logits(network: torch.nn.Module) -> torch.nn.Module:
    """Return a module that returns the logits of a network of transformers."""

    class ImageClassifier(need("torch").nn.Module):  # type: ignore[misc]  # torch is imported when it is used
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixel_values: Any) -> Any:
            return self.network(pixel_values=pixel_values).logits

    module: torch.nn.Module = ImageClassifier()
    return module


def _add_config(config: dict[str, Any], facts: Facts) -> None:
    names = config.get("id2label") or {}
    labels = tuple(str(names[key]) for key in sorted(names, key=int))
    if labels and labels != tuple(f"LABEL_{at}" for at in range(len(labels))):  # which say nothing
        facts.add(f"id2label in {CONFIG}", labels=labels)
    if side := config.get("image_size"):
        facts.add(CONFIG, size=_sides(side))


def _add_preprocessor(folder: Path, facts: Facts) -> None:
    """Add what preprocessor_config.json says, if there is one.

    Its pixels are x = (pixel * rescale_factor - image_mean) / image_std, ours (pixel / 255 - mean) / std.
    """
    if not (folder / PREPROCESSOR).is_file():
        return
    values = _read(folder / PREPROCESSOR)
    factor = 255 * float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 255.0
    normalised = values.get("do_normalize", True)
    mean, std = ((values.get(f"image_{name}") if normalised else None) for name in ("mean", "std"))
    offset = 1.0 if values.get("rescale_offset") else 0.0
    mean, std = mean or [0.0] * len(std or "RGB"), std or [1.0] * len(mean or "RGB")
    facts.add(
        PREPROCESSOR, **_fitting(values), interpolation=RESAMPLE.get(values.get("resample", 2)),
        mean=tuple((float(one) + offset) / factor for one in mean), std=tuple(float(one) / factor for one in std),
        channels="BGR" if values.get("do_flip_channel_order") else None,
    )  # fmt: skip


def _fitting(values: dict[str, Any]) -> dict[str, Any]:
    """Return size and shorter side: of a crop, or 0 for an image that is stretched.

    Raises:
        UsageError: It crops an image that it stretched before, which a spec cannot say.
    """
    size, ratio = values.get("size"), values.get("crop_pct")
    crop = _sides(values.get("crop_size") or size) if values.get("do_center_crop") else None
    if not values.get("do_resize", True) or size is None:
        return {"size": crop}
    shorter = int((size.get("shortest_edge") or 0) if isinstance(size, dict) else size if crop or ratio else 0)
    if not shorter:
        stretched = _sides(size)
        if crop not in (None, stretched):
            got, expected = f"size {stretched}, crop_size {crop}", "size with shortest_edge"
            raise UsageError(f"{PREPROCESSOR} crops an image that it stretched", got=got, expected=expected,
                             do=f"correct {PREPROCESSOR}, or move it away and give --size and --resize")  # fmt: skip
        return {"size": stretched, "resize": 0}
    if ratio:
        return {"size": (shorter, shorter), "resize": 0 if shorter >= WARPED else int(shorter / ratio)}
    return {"size": crop, "resize": shorter} if crop else {"size": (shorter, shorter)}


def _sides(value: Any) -> tuple[int, int]:
    if isinstance(value, dict):
        value = [value[name] if name in value else value["shortest_edge"] for name in ("height", "width")]
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
