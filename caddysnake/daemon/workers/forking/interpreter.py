"""An interpreter of an app: what it is started from, with what, and as whom; and what an app misses."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ....config.language.values import InvalidValue, positive_duration
from ....config.plan.accounts import Account
from ....config.plan.fence import FenceError, Sites, identities, walls_of
from ....config.plan.search import ROOT_HINT, fingerprint, foreign_hand, is_script, located
from ....sandbox import walls as sandbox
from ....sandbox.walls import Walls
from ...system import processes, tempdirs
from ..child.launcher import ForkServerKey, SpawnError

SLOW_START_NAME = "CADDYSNAKE_START_TIMEOUT_WARN_AFTER"
"""As users of the Go plugin know it. It changes a log line only, so it is no directive."""

_PRIVATE_UMASK = 0o027
"""Of an app with a user of its own: what it writes is no other tenant's to read, and its group's still is."""


class Sight(NamedTuple):
    """What there is on disk of an interpreter: a fork server belongs to what it was started from, not to its name."""

    python: str
    path: tuple[str, ...]
    """Of its preloads; links have been followed here as in ``python``."""
    fingerprint: str
    is_script: bool
    walls: Walls | None = None
    identities: tuple[tuple[int, int], ...] = ()
    """Of what its walls are made for."""
    cannot: str = ""
    """Why it must not be started."""

    @classmethod
    def of(cls, key: ForkServerKey, libraries: Sequence[str], private: str = "") -> Sight:
        """Look. Blocks for as long as the file system does. ``private``: the folder of the app that its fence is of."""
        path = tuple(map(os.path.realpath, key.path))
        seen = cls(located(key.python), path, fingerprint(key.python), is_script(key.python))
        if key.fence is None:
            return seen
        try:
            folder = private if key.fence.owner else tempdirs.kept_base()
            walls = walls_of(key.fence, Sites(key.python, tuple(libraries), folder))
        except FenceError as exc:
            return seen._replace(cannot=f"{exc} ({exc.hint})")
        return seen._replace(walls=walls, identities=identities(walls))


def replaced(sight: Sight) -> list[str]:
    """Files of the system's that have given way to others since its walls were made: closed to who is inside."""
    if sight.walls is None:
        return []
    pairs = zip(sight.walls.grants, sight.identities, identities(sight.walls), strict=True)
    return [grant.path for grant, before, now in pairs if grant.path.startswith("/etc/") and before != now]


UNSEEN = Sight("", (), "", False)
"""Of one that another image of the daemon has started."""


def execute(
    account: Account | None,
    environ: Mapping[str, str],
    command: Sequence[str],
    pass_fds: Sequence[int],
    streams: Sequence[int | None],
    walls: Walls | None = None,
) -> subprocess.Popen[bytes]:
    """Start an interpreter as ``account``, within ``walls``: it, its ``.pth`` files and its preloads may be a tenant's.

    Blocks. ``streams``: its standard input (None: there is none), output and error (None: the daemon's).
    Raises ``OSError``, ``SpawnError``, ``SubprocessError``.
    """
    if (os.geteuid() if account is None else account.uid) == 0:
        found = foreign_hand(command[0])
        if found is not None:
            raise SpawnError("setup-failed", f"root must not run {command[0]}: {found}. {ROOT_HINT}", fatal=True)
        if walls is not None:
            raise SpawnError("setup-failed", "no app runs as root in a sandbox", fatal=True)
    stdin, stdout, stderr = streams

    def start() -> subprocess.Popen[bytes]:
        if walls is not None:
            sandbox.put_on(walls)  # of this thread alone, which ends with this
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            env=dict(environ),
            cwd="/",
            start_new_session=True,  # Ctrl-C in a terminal reaches the daemon alone, which ends things in order
            user=account.uid if account is not None else None,
            group=account.gid if account is not None else None,
            extra_groups=account.groups if account is not None else None,
            umask=_PRIVATE_UMASK if account is not None else -1,
        )

    return processes.without_new_privileges(start)


def runs_the_same(one: ForkServerKey, other: ForkServerKey) -> bool:
    """Neither can have code run in its interpreter that the other has not: by its Python, or by variables."""
    return one.python == other.python and _of_code(one) == _of_code(other)


def _of_code(key: ForkServerKey) -> list[tuple[str, str]]:
    return [pair for pair in key.environ if pair[0] == "HOME" or pair[0].startswith("PYTHON")]


def not_passed(daemon: Mapping[str, str], app: Mapping[str, str], text: str) -> list[str]:
    """Names in the daemon's environment, but not in the app's, that ``text`` (a traceback) mentions in quotes."""
    return [name for name in daemon if name not in app and (f"'{name}'" in text or f'"{name}"' in text)]


def slow_start_s(daemon: Mapping[str, str], default: float) -> float:
    """After how long a start that still goes on is told: what the daemon's environment says, if that is a duration."""
    try:
        return positive_duration(daemon[SLOW_START_NAME])
    except (KeyError, InvalidValue):
        return default
