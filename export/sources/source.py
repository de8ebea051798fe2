"""The source that a word names: a zoo network, a Python factory, a package's network, an ONNX file; loads nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...runtime.common.names import is_name
from ...runtime.errors import UsageError
from ...runtime.spec import ModelSpec
from .facts import Fact

PACKAGES = ("timm", "torchvision")
FILES = {".onnx": "onnx", ".pt2": "program"}
_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class NetworkSource:
    """The source of a network.

    Attributes:
        kind: "zoo", "factory" (`file.py:Net`, `package.module:Net`), "module" (in memory), "timm", "torchvision",
            "program" (a file of `torch.export.save`), "huggingface" (a folder with config.json), "onnx".
        place: The zoo's name; the file or module; the package's name of the network.
        factory: Name of the class or function.
        module: The `torch.nn.Module` in memory.
    """

    kind: str
    place: str
    factory: str = ""
    module: Any = None

    @property
    def is_ours(self) -> bool:
        """Whether it is a network of the zoo."""
        return self.kind == "zoo"

    @property
    def needs_torch(self) -> bool:
        """Whether the network is a module that must be exported."""
        return self.kind != "onnx"

    @property
    def runs_code(self) -> bool:
        """Whether loading it runs code that it brings: Python, or a captured program, partly pickled."""
        return self.kind in ("factory", "program")

    @property
    def stem(self) -> str:
        """A word that names the network: for its files, unless something else names it."""
        words = {kind: Path(self.place).stem for kind in ("onnx", "program")}
        words |= {
            "huggingface": Path(self.place).resolve().name,
            "factory": self.factory,
            "module": type(self.module).__name__,
        }
        name = words.get(self.kind, self.place)
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:80].strip("-.").lower()
        return stem if is_name(stem) else "network"


@dataclass(frozen=True, eq=False)
class Network:
    """A loaded network: its spec, the module or the graph of the ONNX file, and the facts of its spec."""

    spec: ModelSpec
    module: Any = None
    graph: Any = None  # onnx.ModelProto
    facts: tuple[Fact, ...] = ()
    sizes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)


def find_source(word: Any) -> NetworkSource:
    """Return the source that a word names.

    Args:
        word: The user's word, or a `torch.nn.Module`.

    Raises:
        UsageError: A file or folder that does not exist, or whose type cannot be exported.
    """
    if not isinstance(word, (str, Path)):
        if not hasattr(word, "state_dict"):
            expected = "a name, a file, or a torch.nn.Module"
            raise UsageError("this is no network", got=type(word).__name__, expected=expected)
        return NetworkSource("module", type(word).__name__, module=word)
    text = str(word)
    head, _, tail = text.rpartition(":")
    if head in PACKAGES:
        return NetworkSource(head, tail)
    if head.endswith(".py"):
        return NetworkSource("factory", _existing(head, text), tail)
    if Path(text).is_dir() and ((Path(text) / "config.json").is_file() or Path(text).name != text):
        return NetworkSource("huggingface", _configured(text))
    suffix = Path(text).suffix.lower()
    if suffix in FILES:
        return NetworkSource(FILES[suffix], _existing(text, text))
    if suffix in (".py", ".pt", ".pth", ".safetensors", ".engine", ".tflite", ".pb", ".h5"):
        raise _unfit(text, suffix)
    return NetworkSource("factory", head, tail) if _NAME.fullmatch(text) else NetworkSource("zoo", text)


def _configured(folder: str) -> str:
    if not (Path(folder) / "config.json").is_file():
        got, expected = "a folder without config.json", "a Hugging Face folder"
        raise UsageError(f"cannot export {folder}", got=got, expected=expected, do="check the path")
    return folder


def _existing(path: str, word: str) -> str:
    if not Path(path).is_file():
        got = "a folder" if Path(path).is_dir() else "no such file"
        raise UsageError(f"cannot export {word}", got=got, expected="a file", do="check the path")
    return path


def _unfit(text: str, suffix: str) -> UsageError:
    """Return advice for a file that is not a network by itself."""
    if suffix == ".py":
        do = f"name the class or function in it that makes the network: {text}:Net"
    elif suffix in (".pt", ".pth", ".safetensors"):
        do = f"such a file holds weights: name the network, and give --weights {text}"
    else:
        do = "export it to ONNX with the tool that wrote it, and give that file"
    files = (
        "FILE.onnx, FILE.pt2, FILE.py:NAME, PACKAGE.MODULE:NAME, timm:NAME, torchvision:NAME, a folder with config.json"
    )
    expected = f"a name of `edgesmith models`, {files}"
    return UsageError(f"cannot export {text}", got=f"a {suffix} file", expected=expected, do=do)
