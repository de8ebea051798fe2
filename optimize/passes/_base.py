"""The base of passes: a named rewrite that reports what it rewrote, what it refused, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from ...runtime.errors import CheckFailed
from ..graph.graph import Graph
from ..graph.node import Node


@dataclass(frozen=True)
class Rewritten:
    """A pass changed the graph at this node; `detail` says how."""

    node: str
    detail: str = ""


@dataclass(frozen=True)
class Refused:
    """A pass did not change this node; `why` is the reason for the user."""

    node: str
    why: str


Outcome = Rewritten | Refused


@dataclass
class RewriteFilter:
    """Filter of rewrites: used to replay a run and to exclude single rewrites.

    Attributes:
        left: The number of rewrites that are still allowed; None for no limit.
        banned: (pass, site) of excluded rewrites.
        done: (pass, site) of the applied rewrites, in order.
    """

    left: int | None = None
    banned: set[tuple[str, str]] = field(default_factory=set)
    done: list[tuple[str, str]] = field(default_factory=list)

    def allows(self, name: str, where: str) -> bool:
        """Return whether a pass may rewrite at a site."""
        return (self.left is None or self.left > 0) and (name, where) not in self.banned

    def note(self, name: str, where: str) -> None:
        """Record an applied rewrite."""
        self.done.append((name, where))
        if self.left is not None:
            self.left -= 1


@dataclass(frozen=True)
class Pass:
    """A rewrite of each node of some types, or of the whole graph.

    Attributes:
        at: Tries the rewrite at one node and returns the outcome; None if it does not apply to the node.
        ops: The node types to which it applies; empty for every node of the standard domain.
        summary: One line that describes the rewrite.
        lowest_opset: Below it the operators have another meaning (broadcasting before 7), so the pass does not run.
        custom: Whether it applies to nodes of other domains too.
    """

    at: Callable[[Graph, Node], Outcome | None]
    ops: tuple[str, ...]
    summary: str
    lowest_opset: int = 7
    custom: bool = False

    def requires(self, net: Graph) -> str:
        """Return why the pass cannot run on this graph, or an empty string."""
        return f"opset {net.opset} is below {self.lowest_opset}" if net.opset < self.lowest_opset else ""

    def call(self, net: Graph, name: str, permit: RewriteFilter) -> list[Outcome]:
        """Run the pass once over the graph, under its name, and check its guarantees."""
        if why := self.requires(net):
            return [Refused("the graph", why)]
        outcomes = []
        for node in [item for item in net.everything() if self.custom or not item.domain]:
            if id(node) in net.dead or (self.ops and node.op not in self.ops):
                continue
            where = site(node)
            if not permit.allows(name, where):
                continue
            outcome = self.at(net, node)
            if isinstance(outcome, Rewritten):
                permit.note(name, where)
            if outcome is not None:
                outcomes.append(outcome)
        net.sweep()
        if any(isinstance(outcome, Rewritten) for outcome in outcomes):
            self.ensures(net, name)
        return outcomes

    def ensures(self, net: Graph, name: str) -> None:
        """Check the invariants of all passes: the model's interface, exactly one producer per tensor.

        Raises:
            CheckFailed: A pass broke an invariant; this is a bug in the pass, and the message names it.
        """
        if problem := _broken(net):
            raise CheckFailed(f"the pass {name} broke the graph", got=problem, do="run without it and report it")


def site(node: Node) -> str:
    """Return the identifier of a rewrite's position in every run: the node's first output."""
    return str(next((tensor.name for tensor in node.outputs if tensor.name), node.name))


def _broken(net: Graph) -> str:
    names = {value.name for value in net.skeleton.graph.input} | set(net.passthrough_tensors)
    for node in net.everything():
        for tensor in node.outputs:
            if tensor.name and tensor.name in names:
                return f"{tensor.name!r} has two producers"
            names.add(tensor.name)
    for node in net.everything():
        for tensor in net.reads(node):
            if not isinstance(tensor, gs.Constant) and tensor.name not in names:
                return f"{node.name!r} reads {tensor.name!r}, which no node produces"
    names |= {tensor.name for tensor in net.graph.outputs if isinstance(tensor, gs.Constant)}
    lost = [value.name for value in net.skeleton.graph.output if value.name not in names]
    return f"output {lost[0]!r} is lost" if lost else ""
