"""How much memory there is for more: of the machine, and of the cgroup that the daemon and all workers are in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import cgroups
from .processes import resident_bytes

_RESERVE = 0.05
"""So much of the whole is left to others."""


class Budget:
    """What the file says that all workers may have: one for the daemon, as memory is."""

    left_bytes: int | None = None
    """How much of it is left; None: there is none."""


def available_bytes() -> int:
    """Return how much may be used without the kernel, or the budget, having to end somebody."""
    found = max(0, min(_of_machine(), *_of_groups()))
    return found if Budget.left_bytes is None else min(found, Budget.left_bytes)


def reserve(size: int) -> None:
    """Take ``size`` bytes of the budget, until it is measured again."""
    if Budget.left_bytes is not None:
        Budget.left_bytes = max(0, Budget.left_bytes - size)


def share_bytes(pid: int) -> int:
    """Return what a process occupies, of what it shares with others its share (proc_pid_smaps(5), Pss); what it has
    resident where that may not be read.
    """
    try:
        return _numbers(Path(f"/proc/{pid}/smaps_rollup"))["Pss"] * 1024
    except (OSError, KeyError):
        return resident_bytes(pid)


def _numbers(path: Path) -> dict[str, int]:
    """Those of a file of the kernel's with lines such as ``Pss:  123 kB``, by their names. Raises ``OSError``."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _of_machine() -> int:
    try:
        found = _numbers(Path("/proc/meminfo"))
        return int((found["MemAvailable"] - found["MemTotal"] * _RESERVE) * 1024)
    except (OSError, KeyError):
        return 1 << 62


def _of_groups() -> Iterator[int]:
    """Of each cgroup above with a limit."""
    yield 1 << 62
    try:
        group = cgroups.own_group(Path("/proc"))
    except (OSError, cgroups.Undelegated):
        return
    for each in (group, *group.parents):
        try:
            limit = (each / "memory.max").read_text().strip()
            if limit != "max":
                cached = _numbers(each / "memory.stat").get("inactive_file", 0)  # which the kernel takes back
                yield int(int(limit) * (1 - _RESERVE)) - int((each / "memory.current").read_text()) + cached
        except (OSError, ValueError):
            continue
