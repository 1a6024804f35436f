"""What this machine has for the commands, and what it lacks: one small probe a thing, one finding a probe.

A probe that fails is a finding, too. TensorFlow is imported in a process of its own, which a broken
installation (a missing library, an illegal instruction) may end without harm.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.python_process import python_command, python_environment

__all__ = ["Finding", "Status", "probes"]

_GIB = 2**30
_LOW_DISK_GIB, _LOW_MEMORY_GIB = 2.0, 2.0
_TIMEOUT_S = 120
_TENSORFLOW = (
    "import models.keras2, tensorflow as tf; tf.reduce_sum(tf.ones([2])).numpy(); "
    "print(len(tf.config.list_physical_devices('GPU')))"
)


class Status(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    LACKS = "lacks"
    """Something optional is missing: `remedy` says which command notices."""
    BROKEN = "broken"
    """Something that every run needs is missing."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a probe found.

    Attributes:
        name: of the thing.
        status: how bad.
        found: version, size, or what is wrong.
        remedy: what is missing without it, and how to get it; empty when all is well.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


Probe = Callable[[], Finding]


def probes(workdir: Path) -> Sequence[Callable[[], Finding]]:
    """Every probe, in the order in which people read them; none of them raises.

    Args:
        workdir: where runs will write; it need not exist yet.
    """
    disk = _nearest_folder(workdir)
    found: list[tuple[str, Probe]] = [
        ("Python", python),
        ("TensorFlow", tensorflow),
        ("Apache Beam", lambda: package("Apache Beam", "apache-beam")),
        ("GPU", gpu),
        ("CPU cores", cpu_cores),
        ("memory", memory),
        ("disk", lambda: disk_space(disk)),
        ("files", lambda: file_system(disk)),
        ("shared memory", lambda: shared_memory(Path("/dev/shm"))),
        ("C++ compiler", lambda: cpp_compiler(os.environ)),
        (
            "TF Serving",
            lambda: program("TF Serving", ["tensorflow_model_server", "--version"], _SERVER),
        ),
        ("Java", lambda: program("Java", ["java", "-version"], _JAVA)),
        ("Google Cloud", lambda: extras("Google Cloud", ["google-cloud-storage"], _GCP)),
        (
            "peers",
            lambda: extras("peers", ["polars", "lightgbm", "scikit-learn", "pandas"], _PEERS),
        ),
    ]
    return [_guarded(name, probe) for name, probe in found]


_SERVER = "`serve` starts the embedded server, which is for development only; install TF Serving."
_JAVA = "Needed only for Beam's Flink and Spark runners; e.g. apt-get install default-jre-headless."
_GCP = "`gs://` paths cannot be used; pip install 'clickparity[gcp]'."
_PEERS = "Needed only by the benchmarks, which leave out what is missing; pip install 'clickparity[bench]'."


def _guarded(name: str, probe: Probe) -> Probe:
    def guarded() -> Finding:
        try:
            return probe()
        except Exception as error:  # whatever a machine comes up with is a finding, no traceback
            why = f"could not be examined: {type(error).__name__}: {error}"
            return Finding(name, Status.LACKS, why, "Fix that, then run doctor again.")

    return guarded


def python() -> Finding:
    """The interpreter; 3.11 to 3.13 are supported."""
    found = f"{platform.python_version()} ({sys.executable})"
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("Python", Status.OK, found)
    return Finding("Python", Status.BROKEN, found, "Use Python 3.11, 3.12 or 3.13.")


def package(name: str, distribution: str) -> Finding:
    """A package that every run needs."""
    try:
        return Finding(name, Status.OK, version(distribution))
    except PackageNotFoundError:
        remedy = f"pip install {distribution}, or install clickparity again."
        return Finding(name, Status.BROKEN, "not installed", remedy)


def tensorflow() -> Finding:
    """TensorFlow and Keras 2, imported and used in a process of its own."""
    name = "TensorFlow"
    try:
        versions = f"{version('tensorflow')}, tf-keras {version('tf-keras')}"
    except PackageNotFoundError as missing:
        remedy = "Install clickparity again, with its requirements."
        return Finding(name, Status.BROKEN, f"{missing.name} is not installed", remedy)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            python_command(["-c", _TENSORFLOW]),
            env={**os.environ, **python_environment(), **quiet},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(
            name, Status.BROKEN, f"{versions}: no answer in {_TIMEOUT_S} s", "Install again."
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return Finding(name, Status.BROKEN, f"{versions}: {lines[-1]}", "Install TensorFlow again.")
    return Finding(name, Status.OK, f"{versions}; sees {done.stdout.split()[-1]} GPU(s)")


def gpu() -> Finding:
    """NVIDIA's GPUs with their memory, as the driver lists them."""
    if shutil.which("nvidia-smi") is None:
        remedy = "Training runs on the CPU. With an NVIDIA GPU: install its driver and 'clickparity[gpu]'."
        return Finding("GPU", Status.LACKS, "none (no nvidia-smi)", remedy)
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    listed = "; ".join(done.stdout.strip().splitlines())
    if done.returncode or not listed:
        found = (done.stderr or done.stdout).strip().splitlines()
        return Finding(
            "GPU", Status.LACKS, " ".join(found[:1]) or "none", "Look at the GPU's driver."
        )
    return Finding("GPU", Status.OK, listed)


def cpu_cores() -> Finding:
    """Those that this process may use."""
    return Finding("CPU cores", Status.OK, str(len(os.sched_getaffinity(0))))


def memory() -> Finding:
    """What is free now, within the limit of a container."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    limit, used = (Path("/sys/fs/cgroup") / f"memory.{kind}" for kind in ("max", "current"))
    if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
        free = min(free, int(text) - int(used.read_text()))
    found = f"{free / _GIB:.1f} GiB free"
    if free < _LOW_MEMORY_GIB * _GIB:
        remedy = f"`train` and `preprocess` may be killed; free {_LOW_MEMORY_GIB:g} GiB or more."
        return Finding("memory", Status.LACKS, found, remedy)
    return Finding("memory", Status.OK, found)


def disk_space(folder: Path) -> Finding:
    """Free space where runs are written."""
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIB:.1f} GiB free in {folder}"
    if free < _LOW_DISK_GIB * _GIB:
        remedy = f"Data, checkpoints and exports need room; free {_LOW_DISK_GIB:g} GiB or more."
        return Finding("disk", Status.LACKS, found, remedy)
    return Finding("disk", Status.OK, found)


def file_system(folder: Path) -> Finding:
    """Whether what makes a step safe works there: flock, fsync of a file and a folder, rename."""
    try:
        with tempfile.TemporaryDirectory(prefix=".clickparity-doctor-", dir=folder) as scratch:
            path = Path(scratch, "file")
            with open(path, "w") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                handle.write("x")
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(path, Path(scratch, "renamed"))
            descriptor = os.open(scratch, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        found = f"{error.strerror or error} in {folder}"
        return Finding(
            "files", Status.BROKEN, found, "Choose a writable local --workdir with locks."
        )
    return Finding("files", Status.OK, f"locks, flushes and renames in {folder}")


def shared_memory(folder: Path) -> Finding:
    """/dev/shm, through which several GPUs exchange gradients."""
    if not folder.is_dir():
        return Finding(
            "shared memory", Status.LACKS, f"no {folder}", "Needed for several GPUs only."
        )
    total = shutil.disk_usage(folder).total
    found = f"{total / _GIB:.2f} GiB in {folder}"
    if total < _GIB:
        remedy = (
            "Several GPUs need 1 GiB; in a container: --shm-size=1g, in k8s: an emptyDir in memory."
        )
        return Finding("shared memory", Status.LACKS, found, remedy)
    return Finding("shared memory", Status.OK, found)


def cpp_compiler(environment: Mapping[str, str]) -> Finding:
    """What compiles TF Serving's loader for `parity`: $CXX, else g++ or clang++."""
    chosen = environment.get("CXX")
    for command in [chosen] if chosen else ["g++", "clang++"]:
        words = shlex.split(command)
        if words and (path := shutil.which(words[0], path=environment.get("PATH"))):
            return Finding("C++ compiler", Status.OK, path)
    found = f"$CXX={chosen} cannot be found" if chosen else "neither g++ nor clang++"
    remedy = "`parity` leaves out TF Serving's C++ loader; e.g. apt-get install g++."
    return Finding("C++ compiler", Status.LACKS, found, remedy)


def program(name: str, command: Sequence[str], remedy: str) -> Finding:
    """An optional program on PATH, and what it says of its version."""
    if shutil.which(command[0]) is None:
        return Finding(name, Status.LACKS, f"no {command[0]} on PATH", remedy)
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, errors="replace"
    )
    lines = (done.stdout + done.stderr).strip().splitlines() or ["(says no version)"]
    if done.returncode:
        return Finding(name, Status.LACKS, f"{command[0]} fails: {lines[-1]}", remedy)
    return Finding(name, Status.OK, lines[0])


def extras(name: str, distributions: Sequence[str], remedy: str) -> Finding:
    """Optional packages."""
    found, missing = [], []
    for distribution in distributions:
        try:
            found.append(f"{distribution} {version(distribution)}")
        except PackageNotFoundError:
            missing.append(distribution)
    if not missing:
        return Finding(name, Status.OK, ", ".join(found))
    return Finding(name, Status.LACKS, f"not installed: {', '.join(missing)}", remedy)


def _nearest_folder(path: Path) -> Path:
    """The folder itself, else the nearest one above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
