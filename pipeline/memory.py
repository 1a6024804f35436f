"""How much memory this process may still take: the machine's, and its container's limit."""

from __future__ import annotations

from pathlib import Path

__all__ = ["available_memory"]

_GROUPS = (  # limit, what is in use, of which may be taken back; cgroup version 2, then 1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated without swapping; None where the system does not say.

    The smaller of the machine's MemAvailable and what the control group (a container's limit) leaves.

    Args:
        root: where /proc and /sys are.
    """
    found = [_of_machine(root), *(_of_group(root, *names) for names in _GROUPS)]
    known = [each for each in found if each is not None]
    return min(known) if known else None


def _of_machine(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) << 10 for x in lines if x.startswith("MemAvailable:")), None)


def _of_group(root: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    groups = root / "sys/fs/cgroup"
    try:
        most = (groups / limit).read_text().strip()
        used = int((groups / usage).read_text())
        statistics = (groups / usage).with_name("memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    if not most.isdecimal():  # "max": no limit
        return None
    cached = next((int(x.split()[1]) for x in statistics if x.split()[0] == reclaimable), 0)
    return max(int(most) - used + cached, 0)
