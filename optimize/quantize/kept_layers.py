"""Layers that a user leaves in float: by a node's name, an operator's type, or a pattern of either."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection

import onnx

from ...runtime.common.plugins import did_you_mean
from ...runtime.errors import UsageError


def kept_names(model: onnx.ModelProto, wanted: Collection[str]) -> frozenset[str]:
    """Return the names of the nodes that are meant.

    Args:
        model: The graph, each node with a name of its own.
        wanted: Names (`/head/conv`), operator types (`MatMul`), or patterns of either with * and ? (`/head/*`).

    Raises:
        UsageError: One of them means no node.
    """
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    kept: set[str] = set()
    for one in wanted:
        names = {node.name for node in nodes if one in (node.name, node.op_type)}
        names = names or {
            node.name for node in nodes
            if fnmatch.fnmatchcase(node.name, one) or fnmatch.fnmatchcase(node.op_type, one)
        }  # fmt: skip
        if not names:
            known = sorted({node.name for node in nodes} | {node.op_type for node in nodes})
            raise UsageError(
                f"no node is meant by {one!r}, which is to stay in float",
                expected="a node's name, an operator's type, or a pattern with *",
                do=did_you_mean(one, known) or "see `edgesmith describe` for the names",
            )
        kept |= names
    return frozenset(kept)
