"""How the source is laid out: short functions, small rooms, private names that stay private, no circles."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION = ("clickparity", "pipeline", "models", "serving", "experiments", "jobs")
MAX_LINES, MAX_FILES = 60, 20
LARGE_ROOMS = {"jobs/commands"}  # one file a command


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Each Python file of ours by its path from the root, parsed."""
    rooms = (*PRODUCTION, "benchmarks", "tests")
    paths = sorted(path for room in rooms for path in (ROOT / room).glob("**/*.py"))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def production() -> dict[str, ast.Module]:
    """The files that ship, by path."""
    return {name: tree for name, tree in trees().items() if name.split("/")[0] in PRODUCTION}


def long_functions(name: str, tree: ast.Module) -> Iterator[str]:
    """Functions longer than MAX_LINES, from `def` to the last line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > MAX_LINES:
                yield f"{name}:{node.name} has {lines} lines"


def private_imports(name: str, tree: ast.Module) -> Iterator[str]:
    """Names beginning with one underscore, or modules of that kind, that are imported from our files."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] not in (*PRODUCTION, "benchmarks", "tests"):
                continue
            for part in (*node.module.split("."), *(alias.name for alias in node.names)):
                if part.startswith("_") and not part.startswith("__"):
                    yield f"{name} imports {part} from {node.module}"


def imported_modules(name: str, tree: ast.Module, known: dict[str, str]) -> set[str]:
    """Our files that importing this one imports: not inside functions, not for types alone."""
    found: set[str] = set()
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {known[alias.name] for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    found.add(known.get(inner) or known[node.module])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)
            ]
    return found - {name}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The files of one circle of imports, or none: what is left when leaves are taken away."""
    left = {name: set(targets) for name, targets in edges.items()}
    while leaves := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in leaves}
    if not left:
        return []
    path = [min(left)]
    while path[-1] not in path[:-1]:
        path.append(min(left[path[-1]] & left.keys()))
    return path[path.index(path[-1]) :]


def test_no_function_is_longer_than_a_screen() -> None:
    assert [
        line for name, tree in production().items() for line in long_functions(name, tree)
    ] == []


def test_no_room_has_more_files_than_a_person_can_survey() -> None:
    sizes = Counter(str(Path(name).parent) for name in production())
    assert {room for room, size in sizes.items() if size > MAX_FILES} == LARGE_ROOMS


def test_private_names_stay_in_their_files() -> None:
    assert [line for name, tree in trees().items() for line in private_imports(name, tree)] == []


def test_imports_make_no_circle() -> None:
    files = production()
    known = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in files
    }
    assert circle({name: imported_modules(name, tree, known) for name, tree in files.items()}) == []


@pytest.mark.parametrize("lines, is_found", [(60, False), (61, True)])
def test_a_long_function_is_found(lines: int, is_found: bool) -> None:
    source = "class A:\n    async def f():\n" + "        x = 1\n" * (lines - 1)
    assert bool(list(long_functions("a.py", ast.parse(source)))) is is_found


@pytest.mark.parametrize(
    "source, is_found",
    [
        ("from pipeline.errors import _secret", True),
        ("def f():\n    from models._inner import name", True),
        ("from __future__ import annotations\nfrom pipeline import __version__", False),
        ("from numpy.core import _methods", False),
    ],
)
def test_a_private_import_is_found(source: str, is_found: bool) -> None:
    assert bool(list(private_imports("a.py", ast.parse(source)))) is is_found


def test_a_circle_is_found_and_what_leads_to_it_is_not_part_of_it() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"d", "b"}, "d": set()}
    assert circle(edges) == ["b", "c", "b"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_imports_inside_functions_or_for_types_alone_make_no_circle() -> None:
    source = (
        "from m import a\nimport m.b\nclass C:\n    from m.c import name\n"
        "try:\n    import m.d\nexcept ImportError:\n    pass\n"
        "if TYPE_CHECKING:\n    import m.e\ndef f():\n    import m.f\n"
    )
    known = {f"m.{x}": f"m/{x}.py" for x in "abcdef"} | {"m": "m/__init__.py"}
    found = imported_modules("m/x.py", ast.parse(source), known)
    assert found == {f"m/{x}.py" for x in "abcd"}
