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


def available_bytes(proc: str = "/proc") -> int:
    """Return how much may be used without the kernel, or the budget, having to end somebody."""
    found = max(0, min(_of_machine(proc), *_of_groups(proc)))
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
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return resident_bytes(pid)


def _of_machine(proc: str) -> int:
    try:
        lines = Path(proc, "meminfo").read_text().splitlines()
        found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        return int(found["MemAvailable"] - found["MemTotal"] * _RESERVE)
    except (OSError, ValueError, KeyError, IndexError):
        return 1 << 62


def _of_groups(proc: str) -> Iterator[int]:
    """Of each cgroup above with a limit."""
    yield 1 << 62
    try:
        group = cgroups.own_group(Path(proc))
    except (OSError, cgroups.Undelegated):
        return
    for each in (group, *group.parents):
        try:
            limit = (each / "memory.max").read_text().strip()
            if limit != "max":
                cached = _inactive_file(each)
                yield int(int(limit) * (1 - _RESERVE)) - int((each / "memory.current").read_text()) + cached
        except (OSError, ValueError):
            continue


def _inactive_file(group: Path) -> int:
    """What of it is a cache that the kernel takes back."""
    for line in (group / "memory.stat").read_text().splitlines():
        name, _, number = line.partition(" ")
        if name == "inactive_file":
            return int(number)
    return 0
