"""Each test file can be collected alone: none leans on what another one imported before it.

Slow: a process a file. Each is forked from one that has imported libraries, in which nothing has
touched `tf.keras` and nothing of ours is there, so that imports meet the order that the file asks for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("test_*.py"))

COLLECT = """
import contextlib, io, json, os, sys
import apache_beam, numpy, pandas, pyarrow.parquet, pytest, scipy.stats, tensorflow

faults = {}
for file in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = pytest.main(["--collect-only", "-qq", "-m", "", "-p", "no:cacheprovider", file])
        os.write(writing, out.getvalue()[-4000:].encode() if code else b"")
        os._exit(int(code))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        faults[file] = text
    print(file, file in faults, file=sys.stderr, flush=True)
print(json.dumps(faults))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_file_is_collected_alone():
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, json.dumps(FILES)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1700,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {}
