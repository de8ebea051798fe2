"""Load a network from its source, with all facts about its input and output."""

from __future__ import annotations

import copy
from pathlib import Path

from ...models import catalog, checkpoints, weights
from ...runtime.common.packages import need
from ...runtime.errors import UsageError
from . import exported_program, huggingface, module_facts, onnx_file, packages, python_factory
from .facts import Facts
from .options import SpecOptions
from .source import Network, NetworkSource

OWN, RANDOM, PRETRAINED = "own", "random", "pretrained"


def load_zoo(source: NetworkSource, origin: str, folder: Path, size: tuple[int, int] | None = None) -> Network:
    """Build a network of the zoo and load its weights.

    Args:
        source: Of the kind "zoo".
        origin: The source of the weights; see `models.weights`.
        folder: The folder of weights.
        size: Another height and width of the images than the network's own for these weights.

    Raises:
        UsageError, ModelError, NotAvailable: As `models.weights.load_into`; or it takes no images of this size.
    """
    spec = catalog.network_spec(source.place, origin)
    usual, spec = spec, catalog.resized(spec, size) if size else spec
    module = catalog.build_network(source.place, spec.num_classes)
    spec = weights.load_into(module, spec, origin, folder=folder)
    try:
        if origin == RANDOM:
            weights.warm_up_batchnorm(module, spec.input_shape)  # otherwise its output is constant
    except RuntimeError as error:
        got, expected = str(error).splitlines()[0], f"such as {usual.input_shape}"
        what = f"{spec.name} cannot compute an input of {spec.input_shape}"
        raise UsageError(what, got=got, expected=expected, do="choose another size") from error
    return Network(spec, module.eval())


def load_network(source: NetworkSource, origin: str, options: SpecOptions, images: bool = True) -> Network:
    """Load a network outside the zoo.

    Args:
        source: Of any kind but "zoo".
        origin: "own" (as the module or file has them), "random", "pretrained" (of the package), or a checkpoint.
        options: The user's options about it.
        images: The data are images, so unknown preprocessing is guessed.

    Raises:
        UsageError: Missing or contradictory facts, or a source that cannot be used.
        ModelError: Code of the source raised an error, or a file cannot be read.
        NotAvailable: A package is not installed.
    """
    facts = options.facts()
    if source.kind == "onnx":
        return _onnx(source, origin, options, facts, images)
    arguments = python_factory.parse_arguments(options.args)
    inputs = None
    if source.kind == "program":
        if ranges := [name for name in ("height", "width", "ranges") if name in facts]:
            expected = "sizes that were free when it was captured; these are fixed"
            do = "give the Python source, or an ONNX file with free sizes"
            raise UsageError(f"{source.place} takes no ranges", got=", ".join(ranges), expected=expected, do=do)
        module, inputs = exported_program.load(Path(source.place), arguments)
    elif source.kind in ("timm", "torchvision"):
        need("torch").manual_seed(0)
        module = packages.build(source, arguments, origin == PRETRAINED, facts)
    elif source.kind == "huggingface":
        need("torch").manual_seed(0)
        module = huggingface.build(Path(source.place), arguments, origin == OWN, facts)
    else:
        module = copy.deepcopy(python_factory.build(source, arguments))
    if origin not in (OWN, RANDOM, PRETRAINED):
        checkpoints.load_checkpoint(module, checkpoints.read_checkpoint(origin), origin)
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    module_facts.add_timm_config(config, "timm's pretrained_cfg", facts)
    module_facts.add_called(module, facts, options.shape, inputs)
    facts.add("the source", name=source.stem)
    facts.add("--weights", weights=Path(origin).name if origin not in (OWN, RANDOM, PRETRAINED) else origin)
    spec = facts.spec(images)
    if origin == RANDOM:
        module_facts.warm_up(module, facts)
    return Network(spec, module, facts=tuple(facts))


def _onnx(source: NetworkSource, origin: str, options: SpecOptions, facts: Facts, images: bool) -> Network:
    path = Path(source.place)
    if origin != OWN:
        got = f"--weights {origin}"
        raise UsageError("an ONNX file has its own weights", got=got, do="leave --weights out")
    if options.args:
        raise UsageError("an ONNX file takes no arguments", got=", ".join(options.args), do="leave --arg out")
    onnx_file.add_metadata(path, facts)
    graph, sizes = onnx_file.add_graph(path, facts, options.shape, options.image_size)
    facts.add("the file's name", name=source.stem)
    facts.add("the file", weights=path.name)
    return Network(facts.spec(images), graph=graph, facts=tuple(facts), sizes=sizes)


def resolve_weights(source: NetworkSource, word: str) -> str:
    """Return the source of the weights of a network outside the zoo.

    Args:
        source: Of any kind but "zoo".
        word: The user's word; "trained", the default for networks of the zoo, has no effect.

    Raises:
        UsageError: The word is not a file and not a valid word for this source.
    """
    packaged = source.kind in ("timm", "torchvision")
    words = (RANDOM, PRETRAINED) if packaged else (RANDOM, OWN)
    if word in ("", "trained", "digits"):
        return PRETRAINED if packaged else OWN
    if word in words or Path(word).is_file():
        return word
    raise UsageError(
        f"unknown weights {word!r}", got="no such file", expected=f"{', '.join(words)}, or a file", do="choose one"
    )
