"""Gate results for CI: JUnit XML, GitHub annotations, a Markdown summary.

Sources: the JUnit schema that Jenkins and GitLab read; GitHub's workflow commands (`::error title=…::message`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from ...runtime.common.escaping import for_github, for_markdown, for_xml


@dataclass(frozen=True)
class GateFinding:
    """One comparison of a gate: its name, the answer, the reason, and its duration in seconds."""

    name: str
    answer: str
    why: str
    seconds: float = 0.0


def junit_xml(findings: Sequence[GateFinding]) -> str:
    """Return JUnit XML: slower is a failure, cannot tell is skipped."""
    failed = sum(item.answer == "slower" for item in findings)
    skipped = sum(item.answer == "cannot tell" for item in findings)
    suite = ElementTree.Element(
        "testsuite", name="edgesmith gate", tests=str(len(findings)), failures=str(failed), skipped=str(skipped),
        errors="0", time=f"{sum(item.seconds for item in findings):.3f}",
    )  # fmt: skip
    for item in findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname="edgesmith", name=for_xml(item.name), time=f"{item.seconds:.3f}"
        )
        if item.answer in ("slower", "cannot tell"):
            kind = "failure" if item.answer == "slower" else "skipped"
            ElementTree.SubElement(case, kind, message=for_xml(f"{item.answer}: {item.why}"))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def github_annotations(findings: Sequence[GateFinding]) -> str:
    """Return GitHub workflow commands, one per line."""
    levels = {"slower": "error", "cannot tell": "warning"}
    lines = [
        f"::{levels.get(item.answer, 'notice')} title={for_github(item.name, True)}::"
        f"{for_github(f'{item.answer}: {item.why}')}"
        for item in findings
    ]
    return "\n".join(lines)


def markdown_summary(findings: Sequence[GateFinding]) -> str:
    """Return a Markdown table for the summary of a CI job."""
    signs = {"slower": "❌", "cannot tell": "❔", "faster": "🚀"}
    rows = [
        f"| {signs.get(one.answer, '✅')} {one.answer} | {for_markdown(one.name)} | {for_markdown(one.why)} "
        f"| {one.seconds:.0f} s |"
        for one in findings
    ]
    return "\n".join(["| answer | what | why | time |", "| --- | --- | --- | ---: |", *rows]) + "\n"
