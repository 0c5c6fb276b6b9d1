"""What one process, and all that it starts, may reach: put on, and never taken off.

Two are put on one after the other, and both hold: what the apps of a fork server have in common, by the thread that
executes its interpreter, and each app's own, by its worker before any code of the app runs.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any, NamedTuple

from . import landlock, seccomp, syscalls

_PR_SET_NO_NEW_PRIVS = 38

HOW = {"read": landlock.READ, "write": landlock.WRITE, "own": landlock.WRITE | landlock.MAKE_SYM,
       "use": landlock.USE, "share": landlock.SHARE}  # fmt: skip
"""What may be done with a path, and below it. ``own``: nobody else looks there; ``use``: a device; ``share``: files
whose names are known."""


class Grant(NamedTuple):
    """``path`` may be used as ``HOW`` has it. ``is_plain``: no link is on the way to it, and none may be there."""

    path: str
    how: str
    is_plain: bool = False


class Walls(NamedTuple):
    """``None`` is: any."""

    grants: tuple[Grant, ...] = ()
    connect: tuple[int, ...] | None = None
    """Ports of TCP."""
    listen: tuple[int, ...] | None = ()
    has_unix: bool = True
    """It may have unix sockets."""

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Walls:
        """What ``_asdict`` made, as JSON brings it back: lists in the place of tuples."""
        known = {name: value for name, value in raw.items() if name in cls._fields}
        for name in ("connect", "listen"):
            if known.get(name) is not None:
                known[name] = tuple(known[name])
        return cls(**{**known, "grants": tuple(Grant(*each) for each in known.get("grants", ()))})

    def calls(self) -> list[syscalls.Call]:
        """System calls that are refused."""
        found = list(syscalls.CALLS)
        found += [] if self.has_unix else syscalls.NO_UNIX
        # Who may have unix sockets may listen on them; but where Landlock knows no ports, this is all that holds.
        if self.listen == () and (not self.has_unix or landlock.abi() < landlock.PORTS_ABI):
            found += syscalls.NO_LISTEN
        if self.connect is not None:
            found += syscalls.NO_DETOURS
        return found


def why_not() -> str:
    """Why there can be no walls on this machine; empty when there can."""
    if seccomp.machine() is None:
        return f"the system calls of {os.uname().machine} are not known here: {' and '.join(syscalls.MACHINES)} are"
    return "" if landlock.abi() else landlock.why_not()


def put_on(walls: Walls, *, with_calls: bool = True) -> None:
    """Put ``walls`` around the calling thread, and all that it starts. Raises ``OSError``: what it is then must end.

    ``with_calls``: refuse system calls, too; that needs to be done once.
    """
    machine = seccomp.machine()
    if machine is None:
        raise OSError(why_not())
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    grants = [(grant.path, HOW[grant.how], not grant.is_plain) for grant in walls.grants]
    landlock.restrict(grants, walls.connect, walls.listen)
    if with_calls:
        seccomp.install(_program(tuple(walls.calls()), machine), machine)


_program = functools.lru_cache(maxsize=8)(seccomp.program)
"""It takes a millisecond to write, and there are few."""
