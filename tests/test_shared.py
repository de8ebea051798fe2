"""What every room shares: error messages, whole files, plugin names, the ModelSpec, the console."""

import errno
import json
import os
import subprocess
import sys
import types

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.cli import console
from edgesmith.runtime.common import packages, plugins, progress
from edgesmith.runtime.common.files import atomic_file, atomic_folder, existing_file, sha256
from edgesmith.runtime.common.names import is_text
from edgesmith.runtime.errors import CheckFailed, EdgesmithError, ModelError, NotAvailable, UsageError
from edgesmith.runtime.spec import ModelSpec, Preprocess, Published


def test_a_message_has_four_parts_on_one_line():
    error = ModelError("the file\nis bad", got="text", expected="ONNX", do="export it")
    assert str(error) == "the file is bad; got text; expected ONNX; do: export it"
    assert str(ModelError("only what")) == "only what"


EXIT_CODES = {UsageError: 2, CheckFailed: 1, ModelError: 1, NotAvailable: 3, EdgesmithError: 1}


@pytest.mark.parametrize("kind", EXIT_CODES)
@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_in_a_command_is_one_line_and_an_exit_code(kind, as_json):
    @console.command("fails")
    def fails(as_json):
        raise kind("broken", do="mend it")

    result = CliRunner().invoke(fails, ["--json"] if as_json else [])
    assert result.exit_code == EXIT_CODES[kind]
    assert result.stderr == "error: broken; do: mend it\n"
    if as_json:
        error = {"kind": kind.__name__, "what": "broken", "got": "", "expected": "", "do": "mend it"}
        assert json.loads(result.stdout) == {"error": error | {"exit_code": EXIT_CODES[kind]}}
    else:
        assert result.stdout == ""


def test_debug_shows_the_traceback():
    @console.command("fails")
    def fails(as_json):
        raise ModelError("broken")

    assert isinstance(CliRunner().invoke(fails, ["--debug"]).exception, ModelError)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (KeyboardInterrupt(), "error: interrupted"),
        (ValueError("odd\nvalue"), "error: unexpected ValueError: odd value"),
    ],
)
def test_an_interrupt_and_a_surprise_are_one_line_too(raised, said):
    @console.command("fails")
    def fails(as_json):
        raise raised

    result = CliRunner().invoke(fails)
    assert result.exit_code == 1
    assert result.stderr.startswith(said)
    assert result.stderr.count("\n") == 1


def test_need_names_the_command_that_installs():
    with pytest.raises(NotAvailable, match=r"pip install no_such_module_here$"):
        packages.need("no_such_module_here")


def test_json_and_table():
    @console.command("shows")
    def shows(as_json):
        console.emit({"a": 1}, as_json, lambda: console.table("title", ("name", "ms"), [("x", 1.5), ("y", None)]))

    assert json.loads(CliRunner().invoke(shows, ["--json"]).stdout) == {"a": 1}
    drawn = CliRunner().invoke(shows).stdout
    assert "title" in drawn
    assert "1.5" in drawn


def test_progress_is_silent_when_nobody_watches(capsys):
    with progress.progress("work", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_atomic_file_is_whole_or_not_there(tmp_path):
    target = tmp_path / "deep" / "file.bin"
    with pytest.raises(RuntimeError), atomic_file(target) as place:
        place.write_bytes(b"half")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    for text in ("first", "second"):
        with atomic_file(target) as place:
            place.write_text(text)
        assert target.read_text() == text
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_atomic_folder_keeps_the_earlier_one_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "folder"
    with atomic_folder(target) as place:
        (place / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(target) as place:
        (place / "a").write_text("2")
        raise RuntimeError
    assert (target / "a").read_text() == "1"
    with atomic_folder(target) as place:
        (place / "b").write_text("3")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("opener", [atomic_file, atomic_folder])
def test_a_full_disk_is_said(opener, tmp_path):
    with (
        pytest.raises(EdgesmithError, match="cannot write .*; got No space left on device; do: free some space"),
        opener(tmp_path / "x"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_existing_file(tmp_path):
    with pytest.raises(UsageError, match="got no such file; expected a file"):
        existing_file(tmp_path / "x", "model")
    with pytest.raises(UsageError, match="got a folder"):
        existing_file(tmp_path, "model")


def test_sha256_of_the_published_vector(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def package(tmp_path):
    for name in ("alpha", "beta_one", "_helper"):
        (tmp_path / f"{name}.py").write_text("")
    module = types.ModuleType("package")
    module.__file__ = str(tmp_path / "__init__.py")
    return module


def test_plugins_are_files(package):
    assert plugins.plugin_names(package) == ["alpha", "beta_one"]
    with pytest.raises(
        UsageError, match=r"^unknown pass 'BetaOn'; expected alpha, beta_one; do: did you mean 'beta_one'\?$"
    ):
        plugins.load_plugin(package, "BetaOn", "pass")


def test_a_name_matches_without_case_and_dashes():
    assert plugins.normalise("MobileNet-V2") == plugins.normalise("mobilenet_v2")
    assert plugins.did_you_mean("mobilnet", ["mobilenetv2", "resnet18"]) == "did you mean 'mobilenetv2'?"
    assert plugins.did_you_mean("zzz", ["mobilenetv2"]) == ""


SIDES = st.integers(1, 1000)


@settings(max_examples=40, deadline=None)
@given(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9._-]{0,20}[A-Za-z0-9]", fullmatch=True), st.tuples(SIDES, SIDES), SIDES,
    st.lists(st.text().filter(is_text), max_size=3),
)  # fmt: skip
def test_a_spec_survives_json(name, crop, classes, labels):
    spec = ModelSpec(
        name, (3, *crop), classes, labels=tuple(labels), preprocess=Preprocess(crop=crop), published=Published(macs=1)
    )
    assert ModelSpec.from_json(spec.to_json()) == spec


BAD_SPECS = {
    "no JSON": "{",
    "no object": "[1]",
    "unknown field": '{"name": "a", "colour": 1}',
    "no name": "{}",
    "empty name": '{"name": ""}',
    "task": '{"name": "a", "task": "dance"}',
    "shape": '{"name": "a", "input_shape": [3, -1, 2]}',
    "shape of words": '{"name": "a", "input_shape": ["a"]}',
    "crop": '{"name": "a", "preprocess": {"crop": [0, 1]}}',
    "preprocess": '{"name": "a", "preprocess": {"zoom": 1}}',
    "deep": "[" * 100000,
}


@pytest.mark.parametrize("name", BAD_SPECS)
def test_a_bad_spec_is_a_model_error(name):
    with pytest.raises(ModelError, match="the (ModelSpec cannot be read|name of the network is not valid)"):
        ModelSpec.from_json(BAD_SPECS[name])


def test_the_command_line_lists_every_command_and_loads_nothing_heavy():
    code = "import sys, edgesmith.cli as c; c.main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    from edgesmith.cli import COMMANDS

    assert all(name in out for name in COMMANDS)
    assert not {"'torch'", "'onnx'", "'numpy'", "'rich'"} & set(out.replace(",", " ").split())


def test_each_command_has_help_and_a_json_option():
    from edgesmith.cli import COMMANDS, main

    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--debug"} <= options, name
        assert command.help, name


def test_an_unknown_command_gets_a_suggestion():
    from edgesmith.cli import main

    result = CliRunner().invoke(main, ["exprt"])
    assert result.exit_code == 2
    assert "did you mean 'export'?" in result.stderr


def _umask():
    current = os.umask(0)
    os.umask(current)
    return current
