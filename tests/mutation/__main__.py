"""`make mutants`: how many small faults in the rooms that must not have any do the tests notice?"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.equivalents import explained_mutants
from tests.mutation.rooms import ROOMS
from tests.mutation.run_mutants import Outcome, RoomResult, run_room

_ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when the score reaches --least, 3 when not."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--room", nargs="*", choices=sorted(ROOMS), help="default: all")
    parser.add_argument("--sample", type=int, help="mutants a room; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument(
        "--near-only", action="store_true", help="only tests seen to run the changed line: quick"
    )
    parser.add_argument("--least", type=float, default=0.9, help="score that passes, 0 to 1")
    arguments = parser.parse_args(argv)
    os.environ.update(TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3")
    explained = explained_mutants()
    results: dict[str, RoomResult] = {}
    for name in arguments.room or ROOMS:
        if not ROOMS[name].source_files(_ROOT):
            continue
        with tempfile.TemporaryDirectory(prefix="mutants_") as scratch:
            results[name] = run_room(
                _ROOT,
                ROOMS[name],
                Path(scratch),
                count=arguments.sample,
                seed=arguments.seed,
                jobs=arguments.jobs,
                near_only=arguments.near_only,
                on_outcome=lambda outcome: _show(outcome, outcome.key in explained),
            )
        print(f"{name}: {_line(results[name], explained)}", flush=True)
    return _summary(results, explained, arguments.least)


def _show(outcome: Outcome, is_explained: bool) -> None:
    state = "killed" if outcome.killed else "explained" if is_explained else "SURVIVED"
    mutant = outcome.mutant
    print(f"{time.strftime('%H:%M:%S')} {outcome.seconds:6.1f} s {state:9} {outcome.path}:{mutant.line}"
          f" {mutant.place} ({mutant.kind})", flush=True)  # fmt: skip
    if not outcome.killed:
        print(f"    - {mutant.before}\n    + {mutant.after}", flush=True)


def _counts(result: RoomResult, explained: set[tuple[str, ...]]) -> tuple[int, int, int]:
    """(killed, explained, survivors)."""
    killed = sum(outcome.killed for outcome in result.outcomes)
    known = sum(not o.killed and o.key in explained for o in result.outcomes)
    return killed, known, len(result.outcomes) - killed - known


def _line(result: RoomResult, explained: set[tuple[str, ...]]) -> str:
    killed, known, survived = _counts(result, explained)
    score = killed / max(killed + survived, 1)
    return (
        f"score {score:.1%}: {killed} killed, {survived} survived, {known} explained, of "
        f"{len(result.outcomes)} run of {result.possible} possible; {result.seconds:.0f} s"
    )


def _summary(results: dict[str, RoomResult], explained: set[tuple[str, ...]], least: float) -> int:
    everything = RoomResult(
        sum(result.possible for result in results.values()),
        tuple(outcome for result in results.values() for outcome in result.outcomes),
        sum(result.seconds for result in results.values()),
    )
    print("\nSurvivors:")
    for outcome in everything.outcomes:
        if not outcome.killed and outcome.key not in explained:
            mutant = outcome.mutant
            print(f"  {outcome.path}:{mutant.line} {mutant.place}\n    - {mutant.before}")
            print(f"    + {mutant.after}")
    for name, result in results.items():
        print(f"{name:15} {_line(result, explained)}")
    print(f"{'all':15} {_line(everything, explained)}")
    killed, _, survived = _counts(everything, explained)
    return 0 if killed >= least * (killed + survived) else 3


if __name__ == "__main__":
    sys.exit(main())
