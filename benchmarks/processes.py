"""CPU time and memory of a server: of all its processes, since some have several. From /proc; Linux only."""

from __future__ import annotations

import os
import re
from pathlib import Path

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")

_PSS = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)


def tree(root: int) -> list[int]:
    """`root` and everything that descends from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_us(root: int) -> float:
    """User and system time of the tree so far, in microseconds, with that of children that ended and were reaped."""
    total = 0.0
    for pid in tree(root):
        fields = _stat(pid)
        if fields is not None:
            # Fields 14 to 17 of proc(5): utime, stime, cutime, cstime; ours begin with field 3.
            total += sum(int(ticks) for ticks in fields[11:15]) * TICK_US
    return total


def busy_us() -> float:
    """What all processors of the machine together have spent so far on anything at all, in microseconds."""
    with Path("/proc/stat").open("rb") as stat:
        # user nice system idle iowait irq softirq steal, in proc(5); what a hypervisor steals is busy with others.
        ticks = [int(each) for each in stat.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) * TICK_US


def pss_bytes(root: int) -> int | None:
    """Proportional set size of the tree; None where the kernel does not let us look."""
    total = 0
    for pid in tree(root):
        try:
            found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_bytes())
        except ProcessLookupError:
            continue
        except OSError:
            return None
        if found:
            total += int(found[1]) * 1024
    return total


def _stat(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat after the command, which may itself hold spaces and parentheses."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
