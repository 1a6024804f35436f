"""Single-line faults of a Python source: each is the source with one small thing changed.

Kinds: a comparison's border, an arithmetic or boolean operator, a constant, a condition's sense, a
returned value, a call of `abs` and the like left out, a statement deleted. Words are left alone, and
so is what only describes: docstrings, annotations, the texts of errors.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator

__all__ = ["Mutant", "mutants_of"]

_COMPARE: dict[type, tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
_ARITHMETIC: dict[type, tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
_DROPPED_CALLS = ("abs", "sorted", "set")
_Scopes = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        place: the function or method that it is in, with its class; `module` outside of any.
        kind: comparison, arithmetic, boolean, condition, constant, return, call or deletion.
        line: where the fault begins, from 1.
        before, after: the changed lines, white space collapsed; with `place` they name the mutant
            whatever happens to the lines around it.
        source: the whole changed file.
    """

    place: str
    kind: str
    line: int
    before: str
    after: str
    source: str


class _Source:
    """A text that is addressed as ast does: lines from 1, columns in bytes of UTF-8."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self._starts = [0]
        for line in self.text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def offset(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column

    def begin(self, node: ast.AST) -> int:
        return self.offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        return self.offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def segment(self, node: ast.AST) -> str:
        return self.text[self.begin(node) : self.end(node)].decode()

    def changed(self, begin: int, end: int, new: str) -> tuple[int, str, str, str]:
        """(line, the changed lines before, and after, the whole text)."""
        line = self.text.count(b"\n", 0, begin) + 1
        last = self.text.count(b"\n", 0, end) + 1
        left, right = self._starts[line - 1], self._starts[last]
        after = self.text[left:begin] + new.encode() + self.text[end:right]
        whole = self.text[:left] + after + self.text[right:]
        collapsed = (" ".join(part.decode().split()) for part in (self.text[left:right], after))
        return line, *collapsed, whole.decode()


def mutants_of(text: str) -> Iterator[Mutant]:
    """Every mutant of a source, in the order of its lines; each of them parses."""
    source = _Source(text)
    seen: set[str] = set()
    for place, node in _nodes(ast.parse(text)):
        for kind, begin, end, new in _changes(source, node):
            line, before, after, whole = source.changed(begin, end, new)
            if whole in seen or whole == text:
                continue
            try:
                ast.parse(whole)
            except SyntaxError:
                continue
            seen.add(whole)
            yield Mutant(place, kind, line, before, after, whole)


def _nodes(module: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """What may be changed, with the name of its place."""
    pending: list[tuple[str, ast.AST]] = [("", node) for node in module.body]
    while pending:
        place, node = pending.pop(0)
        if isinstance(node, ast.Import | ast.ImportFrom) or _only_describes(node):
            continue
        yield place or "module", node
        inner = f"{place}.{node.name}".strip(".") if isinstance(node, _Scopes) else place
        skipped = set(map(id, _left_alone(node)))
        children = [child for child in ast.iter_child_nodes(node) if id(child) not in skipped]
        pending = [(inner, child) for child in children] + pending


def _only_describes(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return False


def _left_alone(node: ast.AST) -> Iterator[ast.AST]:
    """Annotations, decorators, and the texts of errors."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if node.returns is not None:
            yield node.returns
        yield from node.decorator_list
    elif isinstance(node, ast.arg | ast.AnnAssign):
        if node.annotation is not None:
            yield node.annotation
    elif isinstance(node, ast.Raise):
        yield from (part for part in (node.exc, node.cause) if part is not None)
    elif isinstance(node, ast.JoinedStr):
        yield from node.values
    elif isinstance(node, ast.ClassDef):
        yield from node.decorator_list


def _changes(source: _Source, node: ast.AST) -> Iterator[tuple[str, int, int, str]]:
    """(kind, where the change begins and ends, the new text) of one node."""
    if isinstance(node, ast.Compare):
        yield from _compared(source, node)
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        if not any(map(_is_text, (node.left, node.right))):
            old, new = _ARITHMETIC[type(node.op)]
            yield from _between("arithmetic", source, node.left, node.right, old, new)
    elif isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from _between("boolean", source, left, right, old, new)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        kind = "boolean" if isinstance(node.op, ast.Not) else "arithmetic"
        yield kind, source.begin(node), source.begin(node.operand), ""
    elif isinstance(node, ast.Constant):
        yield from _constant(source, node)
    elif isinstance(node, ast.Call):
        yield from _dropped_call(source, node)
    else:
        yield from _statement(source, node)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _between(
    kind: str, source: _Source, left: ast.AST, right: ast.AST, old: str, new: str
) -> Iterator[tuple[str, int, int, str]]:
    begin, end = source.end(left), source.begin(right)
    between = source.text[begin:end].decode()
    if "#" not in between:
        yield kind, begin, end, between.replace(old, new, 1)


def _compared(source: _Source, node: ast.Compare) -> Iterator[tuple[str, int, int, str]]:
    sides = [node.left, *node.comparators]
    for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
        yield from _between("comparison", source, left, right, *_COMPARE[type(operator)])


def _constant(source: _Source, node: ast.Constant) -> Iterator[tuple[str, int, int, str]]:
    value = node.value
    if isinstance(value, bool):
        new = str(not value)
    elif isinstance(value, int):
        new = str(value + 1)
    elif isinstance(value, float):
        new = repr(value * 2 or 1.0)
    else:
        return
    yield "constant", source.begin(node), source.end(node), new


def _dropped_call(source: _Source, node: ast.Call) -> Iterator[tuple[str, int, int, str]]:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    called = node.func.id if isinstance(node.func, ast.Name) else called
    if called in _DROPPED_CALLS and len(node.args) == 1 and not node.keywords:
        argument = f"({source.segment(node.args[0])})"
        yield "call", source.begin(node), source.end(node), argument


def _statement(source: _Source, node: ast.AST) -> Iterator[tuple[str, int, int, str]]:
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        test = node.test
        negated = isinstance(test, ast.Compare | ast.BoolOp) or (
            isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        )  # those have changes of their own
        if not negated:
            new = f"not ({source.segment(test)})"
            yield "condition", source.begin(test), source.end(test), new
    elif isinstance(node, ast.Return):
        if node.value is not None and not _is_none(node.value):
            yield "return", source.begin(node), source.end(node), "return None"
    elif _can_be_deleted(node):
        yield "deletion", source.begin(node), source.end(node), "pass"


def _can_be_deleted(node: ast.AST) -> bool:
    """Statements whose lack is not found by the first reader of a name."""
    if isinstance(node, ast.Assign):
        read = {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
        return all(
            isinstance(target, ast.Attribute | ast.Subscript)
            or (isinstance(target, ast.Name) and target.id in read)  # x = f(x)
            for target in node.targets
        )
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    return isinstance(node, ast.Raise | ast.AugAssign | ast.Continue | ast.Break | ast.Delete)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
