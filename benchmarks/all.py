"""Every benchmark, one after the other, with the peers that are installed.

    python benchmarks/all.py [--quick|--tiny] [--only NAME ...] [--out DIR]

Each is a process of its own and leaves its figures in DIR/NAME.json; one that fails does not stop the
others. What was left out, and how to install it, is said again at the end. At full size the quality of
the models alone takes hours, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# By name: where a benchmark keeps what it made, if it can go on from there.
WORK = {
    "preprocess": None,
    "training": None,
    "serving": None,
    "model_inputs": "--work",
    "model_quality": "--workdir",
    "recipe": "--workdir",
}


def run(name: str, size: list[str], out: Path) -> tuple[int, list[str]]:
    """Runs one and passes on what it writes; its exit code and the lines on what it skipped."""
    command = [sys.executable, str(HERE / f"{name}.py"), *size, "--out", str(out / f"{name}.json")]
    work = WORK[name]
    command += [] if work is None else [work, str(out / name)]
    skipped = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if "skipped;" in line:
                skipped.append(line.strip())
    return process.returncode, skipped


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quick", action="store_true", help="minutes each")
    group.add_argument("--tiny", action="store_true", help="seconds each: do they run?")
    parser.add_argument("--only", nargs="+", choices=tuple(WORK), default=list(WORK))
    parser.add_argument("--out", type=Path, default=Path("bench_out"), help="of the figures")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    size = [f"--{name}" for name in ("quick", "tiny") if getattr(args, name)]
    lines, failed = [], []
    for name in args.only:
        print(f"== {name}", flush=True)
        started_s = time.monotonic()
        code, skipped = run(name, size, args.out)
        # 3: it ran, and a bar was missed
        word = {0: "done", 3: "done, a bar is missed"}.get(code, f"FAILED (exit {code})")
        failed += [name] if code not in (0, 3) else []
        lines.append(f"{name}: {word}, {time.monotonic() - started_s:.0f} s")
        lines += [f"    {line}" for line in dict.fromkeys(skipped)]
    print("\n".join(["== all", *lines]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
