"""Small changes to function bodies, one at a time, that a good test notices: which there are, and the code with one.

    a < b -> a <= b, == != is in and their opposites      a + b -> a - b, * / // % ** & | << >>      -x, not x -> x
    a and b -> a or b       if a: -> if not a:            1 -> 2, True -> False, "word" -> "wordXX"
    return x -> return None   x[i] = y, x += y, f(x), raise, continue, break -> nothing   f(a, b=c) -> f(a)

Left alone: code outside functions, docstrings, annotations, f-strings and texts with a space (they are read by people),
and what a `raise` is given.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.MatMult: ast.Mult,
}  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Mutant:
    """One change: where it is (`lines` of its statement), what stood there and what stands there now."""

    function: str
    first_line: int  # of the outermost function, as its code has it
    lines: tuple[int, int]
    column: int
    was: str
    now: str
    place: tuple[Any, str, int | None]  # parent, field, index
    fresh: Any

    @property
    def name(self) -> str:
        """Its function and what changes, the same as long as the line stays."""
        return f"{self.function}: `{self.was}` -> `{self.now}`"


def mutants(tree: ast.Module) -> Iterator[Mutant]:
    """Yield every mutant of a module in the order of the text."""
    for name, function in _functions(tree, ""):
        first = min(line.lineno for line in (function, *function.decorator_list))
        for statement in function.body:
            for parent, field, index, node, lines in _nodes(
                function, "body", function.body.index(statement), statement
            ):
                for fresh in _changes(parent, field, node):
                    was, now = (_text(one) for one in (node, fresh))
                    yield Mutant(name, first, lines, node.col_offset, was, now, (parent, field, index), fresh)


def compiled(tree: ast.Module, mutant: Mutant, path: str) -> CodeType:
    """Return a module's code with one mutant in it; the tree stays as it was."""
    parent, field, index = mutant.place
    before = getattr(parent, field) if index is None else getattr(parent, field)[index]
    fresh = ast.fix_missing_locations(ast.copy_location(mutant.fresh, before))
    _put(mutant.place, fresh)
    try:
        return compile(tree, path, "exec")
    finally:
        _put(mutant.place, before)


def _put(place: tuple[Any, str, int | None], node: Any) -> None:
    parent, field, index = place
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the functions that are in no other, with their names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            yield prefix + child.name, child
        else:
            yield from _functions(child, f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix)


def _nodes(
    parent: Any, field: str, index: int | None, node: Any, lines: tuple[int, int] = (0, 0)
) -> Iterator[tuple[Any, str, int | None, Any, tuple[int, int]]]:
    """Yield a node and those in it, each with its place and the lines of the innermost statement (or its head)."""
    if isinstance(node, ast.stmt):
        body = getattr(node, "body", None)
        lines = node.lineno, max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
    if field in ("annotation", "returns", "decorator_list", "exc", "cause", "format_spec") or _is_docstring(node):
        return
    yield parent, field, index, node, lines
    if isinstance(node, ast.JoinedStr):
        return
    for name, value in ast.iter_fields(node):
        for number, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield from _nodes(node, name, number, child, lines)


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(parent: Any, field: str, node: Any) -> Iterator[ast.AST]:
    """Yield what may stand in place of one node."""
    if isinstance(node, ast.expr):
        yield from _of_expression(node)
        if field in ("test", "ifs") and not isinstance(node, (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)):
            yield ast.UnaryOp(ast.Not(), node)
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.AugAssign):
        yield ast.Pass()
        if type(node.op) in ARITHMETIC:
            yield ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value)
    elif (
        isinstance(node, (ast.Raise, ast.Continue, ast.Break))
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
        or (isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Subscript, ast.Attribute)))
    ):
        yield ast.Pass()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _of_expression(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare):
        for number, op in enumerate(node.ops):
            ops = [*node.ops[:number], COMPARE[type(op)](), *node.ops[number + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, (int, float)):
            yield ast.Constant(node.value + 1)
        elif isinstance(node.value, str) and " " not in node.value:
            yield ast.Constant(node.value + "XX")
    elif isinstance(node, ast.Call):
        for number, keyword in enumerate(node.keywords):
            if keyword.arg:
                yield ast.Call(node.func, node.args, [*node.keywords[:number], *node.keywords[number + 1 :]])


def _text(node: Any) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else f"{text[:34]} … {text[-34:]}"
