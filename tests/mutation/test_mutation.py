"""The mutation tool on a toy; and that what is explained still exists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.mutation.equivalents import explained_mutants
from tests.mutation.mutants import mutants_of

ROOT = Path(__file__).resolve().parents[2]

TOY = '''"""Says 1 + 1 == 2."""

LIMIT = 3


def clipped(value: int = 0) -> int:
    """abs(value), at most LIMIT."""
    if abs(value) > LIMIT:
        raise ValueError(f"{value} > {LIMIT}")
    return abs(value)
'''


def test_mutants_of_a_toy():
    found = [(m.place, m.kind, m.line, m.before, m.after) for m in mutants_of(TOY)]
    limit = "if abs(value) > LIMIT:"
    assert found == [
        ("module", "constant", 3, "LIMIT = 3", "LIMIT = 4"),
        ("clipped", "constant", 6, "def clipped(value: int = 0) -> int:",
         "def clipped(value: int = 1) -> int:"),
        ("clipped", "comparison", 8, limit, "if abs(value) >= LIMIT:"),
        ("clipped", "call", 8, limit, "if (value) > LIMIT:"),
        ("clipped", "deletion", 9, 'raise ValueError(f"{value} > {LIMIT}")', "pass"),
        ("clipped", "return", 10, "return abs(value)", "return None"),
        ("clipped", "call", 10, "return abs(value)", "return (value)"),
    ]  # fmt: skip


def test_a_name_that_is_set_from_itself_may_be_left_as_it_was():
    found = [(m.before, m.kind) for m in mutants_of("def f(x):\n    x = x[0:]\n    y = x\n")]
    assert ("x = x[0:]", "deletion") in found
    assert not [before for before, kind in found if before == "y = x"]


RUN = """
import subprocess, sys
from pathlib import Path
from tests.mutation.rooms import Room
from tests.mutation.run_mutants import run_room

root, scratch = Path(sys.argv[1]), Path(sys.argv[2])
room = Room(("toy.py",), ("test_*.py",))
for outcome in run_room(root, room, scratch).outcomes:
    print(outcome.killed, outcome.mutant.line, outcome.mutant.kind)
"""


def test_a_room_is_run_and_survivors_are_found(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "toy.py").write_text(TOY.replace("value: int = 0", "value: int"))
    (tree / "setup.cfg").write_text("[tool:pytest]\naddopts = --import-mode=importlib\n")
    (tree / "test_toy.py").write_text(
        # the border is not tested; and a process that a test starts must see the fault too
        "import subprocess, sys, toy, pytest\n"
        "def test_large():\n"
        "    with pytest.raises(ValueError): toy.clipped(4)\n"
        "def test_small():\n"
        "    line = [sys.executable, '-c', 'import toy; print(toy.clipped(-1))']\n"
        "    assert subprocess.check_output(line, text=True) == '1\\n'\n"
    )
    subprocess.run(["git", "init", "-q", tree], check=True)
    done = subprocess.run(
        [sys.executable, "-c", RUN, tree, tmp_path / "scratch"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [
        "True 3 constant",
        "False 8 comparison",
        "False 8 call",
        "True 9 deletion",
        "True 10 return",
        "True 10 call",
    ]
    assert (tree / "toy.py").read_text() == TOY.replace("value: int = 0", "value: int")


def test_what_is_explained_still_exists():
    explained = explained_mutants()
    existing = {
        (path, mutant.place, mutant.before, mutant.after)
        for path in {entry[0] for entry in explained}
        for mutant in mutants_of((ROOT / path).read_text())
    }
    assert explained - existing == set()
