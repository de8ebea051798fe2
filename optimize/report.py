"""Report of an optimizer run: plain data, for JSON and for the table of `--explain`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..runtime.common.display import Displayed, Table
from .equivalence import Equivalence
from .passes._base import Outcome, Refused, Rewritten


@dataclass(frozen=True)
class PassReport:
    """The rewrites, refusals and rolled-back rewrites of one pass: each a tuple of (node, explanation)."""

    name: str
    rewrites: tuple[tuple[str, str], ...] = ()
    refusals: tuple[tuple[str, str], ...] = ()
    rolled_back: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Size:
    """A graph's size: nodes, multiply-adds (dynamic axes count as 1), bytes of the file and its weights."""

    nodes: int
    macs: int
    bytes: int


@dataclass(frozen=True, repr=False)
class Report(Displayed):
    """Source, result, the report of each pass, sizes before and after, and the comparison."""

    source: str
    target_path: str
    target: str
    passes: tuple[PassReport, ...]
    before: Size
    after: Size
    check: Equivalence
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def rewrites(self) -> int:
        """The number of rewrites in the result."""
        return sum(len(entry.rewrites) for entry in self.passes)

    def headline(self) -> str:
        """Return nodes before and after, the verdict of the comparison and the seconds."""
        check = self.check
        verdict = {
            "equal": f"equal on {check.runs} inputs, {check.error}",
            "not run": "not compared (--no-verify): a rewrite that is wrong on this graph would not be detected",
        }.get(check.verdict, check.verdict)
        undone = sum(len(entry.rolled_back) for entry in self.passes)
        rolled = f", {undone} rolled back" if undone else ""
        return (
            f"{self.target_path}: {self.before.nodes} -> {self.after.nodes} nodes, "
            f"{self.rewrites} rewrites{rolled}; {verdict}; {self.seconds:.2f} s"
        )

    def table(self) -> Table:
        """Return each pass with the number of its rewrites, refusals and rewrites rolled back."""
        rows = [(one.name, len(one.rewrites), len(one.refusals), len(one.rolled_back)) for one in self.passes]
        return ("pass", "rewrites", "refused", "rolled back"), rows

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return asdict(self)


def collect(log: list[tuple[str, list[Outcome]]], rolled_back: dict[tuple[str, str], str]) -> tuple[PassReport, ...]:
    """Sum up the outcomes of each pass over all rounds; a refusal counts once, and only if the last round has it too.

    Args:
        log: (pass, outcomes) in the order in which they ran.
        rolled_back: (pass, site) to the reason.
    """
    names = list(dict.fromkeys([name for name, _ in log] + [name for name, _ in rolled_back]))
    return tuple(_one(name, [outcomes for run, outcomes in log if run == name], rolled_back) for name in names)


def _one(name: str, runs: list[list[Outcome]], rolled_back: dict[tuple[str, str], str]) -> PassReport:
    rewrites = tuple((item.node, item.detail) for run in runs for item in run if isinstance(item, Rewritten))
    last = runs[-1] if runs else []
    refusals = tuple(dict.fromkeys((item.node, item.why) for item in last if isinstance(item, Refused)))
    undone = tuple((where, why) for (owner, where), why in rolled_back.items() if owner == name)
    return PassReport(name, rewrites, refusals, undone)
