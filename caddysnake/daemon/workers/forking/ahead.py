"""A fork server that starts while the daemon is still being imported, on another core, before it is known what will
run: of the daemon's own Python, with what an app inherits unless its block says otherwise. Who wants another starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ....channel.endpoint import pair
from ....config.plan.search import located
from ....installation import PACKAGE, library_folders
from ...system import processes

_BASE = ("PATH", "HOME", "LANG", "LC_*", "TZ", "TMPDIR")
_FOR_INTERPRETER = ("PYTHON*", "MALLOC_*")
# The first is applied in the worker, the second is for terminals.
_NOT_FOR_INTERPRETER = ("PYTHONPATH", "PYTHONSTARTUP")


class ForkServerAhead(NamedTuple):
    """It waits on ``channel`` for the rest of its options. ``readers``: of its standard output and error."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    readers: list[int]
    made_for: tuple[str, str, dict[str, str]]
    """Interpreter, interface, environment."""

    def end(self) -> None:
        """Nobody wants it."""
        self.process.kill()
        self.process.wait()
        self.channel.close()
        for fd in self.readers:
            os.close(fd)


_waiting: list[ForkServerAhead] = []


def for_interpreter(app: Mapping[str, str]) -> dict[str, str]:
    """What of an app's environment an interpreter reads when it starts: part of its key, and nothing secret."""
    return {
        name: value
        for name, value in app.items()
        if _any(name, _BASE) or (_any(name, _FOR_INTERPRETER) and name not in _NOT_FOR_INTERPRETER)
    }


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def start(interface: str) -> None:
    """Start it, if that can be. ``interface``: whose server is imported, which is a guess; ``auto`` as for ``serve``,
    whose app has all of our environment.
    """
    processes.become_supervisor()  # it inherits limits
    python = located(sys.executable)
    environ = for_interpreter({name: value for name, value in os.environ.items() if name != "TMPDIR"})
    if interface != "auto":
        environ = {name: value for name, value in environ.items() if _any(name, _BASE)}
    readers: list[int] = []
    writers: list[int] = []
    ours, theirs = pair()
    try:
        for _ in range(2):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(reader, False)
            readers.append(reader)
            writers.append(writer)
        options = {"channel": theirs.fileno(), "libraries": library_folders(os.environ), "interface": interface}
        command = [python, str(PACKAGE / "worker" / "bootstrap.py"), json.dumps({**options, "is_ahead": True})]
        process = processes.without_new_privileges(
            lambda: subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=writers[0],
                stderr=writers[1],
                pass_fds=[theirs.fileno()],
                env=environ,
                cwd="/",
                start_new_session=True,
            )
        )
        _waiting.append(ForkServerAhead(process, ours, readers, (python, interface, environ)))
    except (OSError, subprocess.SubprocessError):  # whoever needs one will say why there is none
        ours.close()
        for fd in readers:
            os.close(fd)
    finally:
        theirs.close()
        for fd in writers:
            os.close(fd)


def claim(python: str, interface: str, environ: dict[str, str], options: Mapping[str, Any]) -> ForkServerAhead | None:
    """The one that was started, if it is for this, for the first who asks; it goes on with ``options``."""
    if not _waiting or _waiting[0].made_for != (python, interface, environ):
        return None
    found = _waiting.pop()
    try:
        found.channel.send(json.dumps(options).encode())
    except OSError:  # it has ended; the one that is started in its place will say why
        found.end()
        return None
    return found


def discard() -> None:
    """End the one that nobody has claimed."""
    while _waiting:
        with contextlib.suppress(OSError):
            _waiting.pop().end()
