"""Two hundred hostile names through every format that Edgesmith writes, each read back by a parser of the format."""

import contextlib
import csv
import io
import json
import random
import re
import unicodedata
from xml.etree import ElementTree

import onnx
import pytest
from google.protobuf import text_format

from edgesmith.bench.gate import ci_reports
from edgesmith.bench.gate.ci_reports import GateFinding
from edgesmith.bench.report import page, tables
from edgesmith.bench.result import run_from_dict
from edgesmith.cli import console
from edgesmith.runtime.common import escaping, names, progress
from edgesmith.runtime.errors import DataError
from edgesmith.runtime.serving import triton
from support import results

PARTS = (
    "::error::x", "::add-mask::", " ::stop-commands::t", "##[error]x", "##[", "\n::warning file=a::b", "\r\n", "\n",
    "\t", "\x1b[31m", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x9b2J", "\b\b", "\0", "\x7f", "\u202e",
    "\u2066", "\u2028", "\ud800", "|", "||", "\\", "\\|", "`", "```", "# h", "- x", "<img src=x onerror=alert(1)>",
    "</script>", "<!--", "-->", "]]>", "&amp;", "&#x1b;", "![x](http://x/y.png)", "[x](javascript:alert(1))",
    "=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", '"', "'", '","', "%0A::error::", "%", "%25",
    ",title=x", "[red]x[/red]", "[link=http://x]x", "ü", "猫", "", "a" * 300, "../../x", "{{x}}", "${x}", "$(x)",
    "<!--TITLE-->",
)  # fmt: skip


def hostile_names(count=200):
    """Return each part alone, then joined by a fixed seed."""
    random.seed(22)
    joined = ["".join(random.choices((*PARTS, "net", " "), k=random.randint(2, 5))) for _ in range(count - len(PARTS))]
    return [*PARTS, *joined]


NAMES = hostile_names()


def is_quiet(text):
    """Return whether a terminal shows the text as it is, and GitHub's runner finds no command in its lines."""
    shown = all(char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp") for char in text)
    shown = shown and not re.search("[\u202a-\u202e\u2066-\u2069]", text)
    return shown and not any(line.strip().startswith("::") for line in text.splitlines()) and "##[" not in text


def on_terminal(name, write):
    """Return what is written to both streams."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        write(name)
    return out.getvalue() + err.getvalue()


def refused(name):
    def action():
        raise DataError(f"cannot read {name}", got=name, do=name)

    assert console.guarded(action) == DataError.exit_code


TERMINAL = {
    "a line": console.say,
    "a table": lambda name: console.table(name, ["a", "b"], [[name, "x"], ["x", name]]),
    "a note": progress.note,
    "a known error": refused,
    "an unknown error": lambda name: console.guarded(lambda: {}[name]),
}


@pytest.mark.parametrize("sink", TERMINAL)
def test_the_terminal_and_the_log_of_a_job_stay_quiet(sink):
    for name in NAMES:
        assert is_quiet(on_terminal(name, TERMINAL[sink])), repr(name)


def test_json_says_the_same_and_is_no_command():
    for name in NAMES:
        text = on_terminal(name, lambda name: console.emit({name: name}, True, lambda: None))
        assert json.loads(text) == {name: name}
        assert is_quiet(text)


def cells(line):
    """Return the cells of a line of a Markdown table, as GitHub splits it."""
    return re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]


def test_markdown_keeps_its_cells_and_lines():
    for name in NAMES:
        (_, _, line), width = ci_reports.markdown_summary([GateFinding(name, "same", name)]).splitlines(), 4
        assert len(cells(line)) == width, repr(name)
        assert len(cells(tables.row([name, "x"]))) == 2
        run = renamed(name)
        text = tables.runs_markdown(run, name)
        assert [line for line in text.splitlines() if line.startswith("#")][1:] == []
        assert len({len(cells(line)) for line in text.splitlines() if line.startswith("|")}) == 1
        assert not re.search(r"(?<!\\)<|(?<!\\)(?:\\\\)*\[", text.replace(tables.caption(run), ""))
        assert is_quiet(text)


def renamed(name):
    """Return a result in which a hostile machine wrote its names."""
    values = results.run(names=("resnet50",)).to_dict()
    for result in values["results"]:
        result["subject"] = {**result["subject"], "model": name, "artifact": name, "backend": name}
    values["environment"] = {**values["environment"], "cpu": name, "system": name}
    return run_from_dict({**values, "command": name})


def test_csv_keeps_its_cells_and_has_no_formula():
    for name in NAMES:
        rows = list(csv.reader(io.StringIO(tables.comma_separated(renamed(name)), newline="")))
        assert {len(row) for row in rows} == {8}
        assert not any(row[column].startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for column in (0, 1, 2))


def test_junit_is_xml_with_one_case():
    for name in NAMES:
        suite = ElementTree.fromstring(ci_reports.junit_xml([GateFinding(name, "slower", name)]).encode())
        ((case, *others), (failure,)) = list(suite), list(next(iter(suite)))
        assert (others, case.tag, failure.tag) == ([], "testcase", "failure")


def test_an_annotation_is_one_command_that_says_the_name():
    """Read as the runner reads it: properties are split at commas and colons, then unescaped."""
    for name in NAMES:
        text = ci_reports.github_annotations([GateFinding(name, "slower", name)])
        assert text.count("\n") == 0
        assert "##[" not in text
        head, _, message = text[len("::error ") :].partition("::")
        (title,) = head.split(",")
        for raw, coded in (("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C"), ("%", "%25")):
            title, message = title.replace(coded, raw), message.replace(coded, raw)
        said = escaping.for_xml(name).replace("##[", "# #[")
        assert (title.removeprefix("title="), message) == (said, f"slower: {said}")


def test_a_page_holds_data_and_no_element():
    empty = page.render([results.run(names=("resnet50",))], "x")
    for name in NAMES[::5]:
        text = page.render([renamed(name)], name)
        for tag in ("<script", "</script", "<img", "<!--"):
            assert text.count(tag) == empty.count(tag), repr(name)


def test_a_string_of_protobuf_is_read_back():
    for name in (name for name in NAMES if "\ud800" not in name):
        text = triton.text({"key": name, "value": name})
        entry = text_format.Parse(text, onnx.StringStringEntryProto())
        assert (entry.key, entry.value) == (name, name)


def test_what_may_be_a_name_needs_no_escape():
    plain = [escaping.for_terminal, escaping.for_markdown, escaping.for_csv, escaping.for_xml, escaping.for_github]
    for name in ("mobilenetv2", "resnet18-f37072fd", "A.B_c-d", "x1.5,y"):
        assert names.is_name(name)
        assert {escape(name) for escape in plain} == {name}


RAW = {
    "a terminal": lambda: is_quiet("".join(NAMES)),
    "a command": lambda: is_quiet("::error::x"),
    "a cell": lambda: len(cells("| a|b | c |")) == 2,
}


@pytest.mark.parametrize("case", RAW)
def test_what_is_not_escaped_is_noticed(case):
    assert not RAW[case]()
