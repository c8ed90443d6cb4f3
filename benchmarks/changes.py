"""Finds every place of a Python file that can be changed: comparisons, arithmetic operators, `and`, `or`, `not`,
numbers, True and False. `benchmarks/mutants.py` makes such changes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

COMPARED: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
}
TEXTS = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)
GAP = re.compile(rb"(?:#[^\n]*|[\s()\\])*")  # what may lie between an operand and its operator


def changes(text: bytes) -> list[tuple[int, int, str]]:
    """Every change of a file as (first byte, byte after the last, new text), in the order of the file.

    Code that decides nothing when it runs is left out: docstrings, annotations, decorators, asserts, formatted texts,
    `__all__`, the bodies of `if TYPE_CHECKING`, `total` of a `TypedDict`, and `strict` in `zip`. The change from −1 to
    −2 in `reshape` is left out too, because NumPy treats all negative numbers alike.
    """
    starts = [0]
    for line in text.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)

    def span(node: ast.expr) -> tuple[int, int]:
        return starts[node.lineno - 1] + node.col_offset, starts[(node.end_lineno or 0) - 1] + (
            node.end_col_offset or 0
        )

    def between(node: ast.expr, old: str, new: str) -> tuple[int, int, str]:
        """The operator after the operand `node`."""
        match = GAP.match(text, span(node)[1])
        assert match is not None
        found = re.compile(old.encode()).match(text, match.end())
        assert found is not None, (old, text[match.end() : match.end() + 20])
        return *found.span(), new

    def of(node: ast.AST) -> Iterator[tuple[int, int, str]]:
        match node:
            case ast.Compare(left, operators, comparators):
                for operand, operator in zip([left, *comparators], operators, strict=False):
                    yield between(operand, *COMPARED[type(operator)])
            case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC and not is_text(left, right):
                old, new = ARITHMETIC[type(operator)]
                yield between(left, re.escape(old), new)
            case ast.AugAssign(target, operator, value) if type(operator) in ARITHMETIC and not is_text(value):
                old, new = ARITHMETIC[type(operator)]
                yield between(target, re.escape(f"{old}="), f"{new}=")
            case ast.BoolOp(operator, values):
                pair = ("and", "or") if isinstance(operator, ast.And) else ("or", "and")
                yield from (between(value, *pair) for value in values[:-1])
            case ast.UnaryOp(ast.Not()):
                found = re.compile(rb"not\b\s*").match(text, span(node)[0])
                assert found is not None
                yield *found.span(), ""
            case ast.UnaryOp(ast.USub()):
                yield span(node)[0], span(node)[0] + 1, "+"
            case ast.Constant(bool(value)):
                yield *span(node), str(not value)
            case ast.Constant(int(value) | float(value)):
                yield *span(node), repr(value + 1)

    found = [change for node in walked(ast.parse(text)) for change in of(node)]
    return sorted(change for change in found if text[change[0] : change[1]] != change[2].encode())


def is_text(*operands: ast.expr) -> bool:
    """Whether an operand is certainly a text, a list or a tuple. `+` joins these operands instead of adding them."""
    return any(
        isinstance(operand, TEXTS)
        or (isinstance(operand, ast.Constant) and isinstance(operand.value, str | bytes))
        or (isinstance(operand, ast.BinOp) and is_text(operand.left, operand.right))
        for operand in operands
    )


def walked(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those that `changes` leaves out."""
    if isinstance(node, ast.Assert | ast.JoinedStr):
        return
    yield node
    skipped: set[str] = {"decorator_list", "annotation", "returns"}
    if isinstance(node, ast.ClassDef):
        skipped |= {"bases"}
        skipped |= {"keywords"} if any(ast.unparse(base) == "TypedDict" for base in node.bases) else set()
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        skipped |= {"body"}
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        skipped |= {"value"} if isinstance(target, ast.Name) and target.id == "__all__" else set()
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
        skipped |= {"keywords"}
    rest = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reshape"
    for name, value in ast.iter_fields(node):
        if name not in skipped:
            for child in value if isinstance(value, list) else [value]:
                if rest and isinstance(child, ast.UnaryOp) and isinstance(child.operand, ast.Constant):
                    yield child
                elif isinstance(child, ast.AST):
                    yield from walked(child)


def line_of(text: bytes, place: int) -> int:
    """The number of the line that holds a byte."""
    return text.count(b"\n", 0, place) + 1
