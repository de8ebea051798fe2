"""A network from a Python class or function: `file.py:Net`, `package.module:make_net`. The file's code is executed."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.common.packages import need
from ...runtime.common.plugins import did_you_mean
from ...runtime.errors import EdgesmithError, ModelError, UsageError
from .source import NetworkSource

if TYPE_CHECKING:
    import torch


def build(source: NetworkSource, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """Import the file or module of a source, call its factory, and return the module.

    Args:
        source: Of the kind "factory", or "module" (which is returned as it is).
        arguments: Keyword arguments of the factory.

    Raises:
        UsageError: There is no such module or factory, it needs other arguments, or its result is not a module.
        ModelError: The file or the factory raised an error; the message has it, with its line.
    """
    if source.kind == "module":
        if arguments:
            raise UsageError("a module takes no arguments", got=", ".join(arguments), do="leave --arg out")
        return _checked(source.module, source.place)
    factory = _factory(_imported(source), source)
    _check_arguments(factory, source, arguments)
    try:
        module = factory(**arguments)
    except Exception as error:
        raise ModelError(f"{source.factory} raised an error", got=_told(error), do="try it in Python") from error
    return _checked(module, f"what {source.factory} returns")


def parse_arguments(words: Sequence[str]) -> dict[str, Any]:
    """Parse `width=0.5`, `name=text`: values are Python literals, otherwise text.

    Raises:
        UsageError: A word without "=", or the same name twice.
    """
    arguments: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier() or name in arguments:
            raise UsageError("cannot read the argument", got=repr(word), expected="NAME=VALUE, each name once")
        try:
            arguments[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            arguments[name] = text
    return arguments


def _imported(source: NetworkSource) -> Any:
    place = source.place
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place).resolve()
        name = f"edgesmith_source_{path.stem}"
        description = importlib.util.spec_from_file_location(name, path)
        assert description is not None
        assert description.loader is not None
        module = importlib.util.module_from_spec(description)
        sys.modules[name] = module  # dataclasses and pickles look their module up
        sys.path.insert(0, str(path.parent))  # the file may import modules beside it
        try:
            description.loader.exec_module(module)
        finally:
            sys.path.remove(str(path.parent))
        return module
    except ModuleNotFoundError as error:
        if error.name and place.startswith(error.name):
            do = "write FILE.py:NAME for a file, or install the package"
            raise UsageError(f"there is no module {place!r}", got=str(error), do=do) from error
        raise ModelError(f"{place} cannot be imported", got=_told(error), do="install what it imports") from error
    except EdgesmithError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"{place} cannot be imported", got=_told(error), do="try it in Python") from error


def _factory(module: Any, source: NetworkSource) -> Any:
    factory = getattr(module, source.factory, None)
    if callable(factory):
        return factory
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    do = did_you_mean(source.factory, names) or "name a class or function of it"
    got = "no such name" if factory is None else type(factory).__name__
    raise UsageError(f"{source.place} has no factory {source.factory!r}", got=got, do=do)


def _check_arguments(factory: Any, source: NetworkSource, arguments: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # a builtin: the call itself will raise
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        do = "give them with --arg NAME=VALUE"
        raise UsageError(
            f"the arguments do not fit {source.factory}{signature}", got=str(error), do=do,
        ) from error  # fmt: skip


def _checked(value: Any, what: str) -> torch.nn.Module:
    if not isinstance(value, need("torch").nn.Module):
        raise UsageError(f"{what} is no network", got=type(value).__name__, expected="a torch.nn.Module")
    return value.eval()  # type: ignore[no-any-return]


def _told(error: BaseException) -> str:
    """Return an error as one line, with the last line of the user's code in its traceback."""
    frame, where = error.__traceback__, ""
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if name != __file__ and not name.startswith("<frozen"):
            where = f" at {Path(name).name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{where}"
