"""Fork server: one interpreter, warmed once, from which workers are forked in milliseconds.

Single-threaded and without any tenant's settings: a child reads its own ``Configure`` from its own channel, since the
next tenant is forked from this memory. Children are reaped only when the daemon asks: until then their pids, and the
ids of their process groups, cannot be used again.

When the daemon is gone the children leave by themselves; what is still there after the grace period is killed from
here, which works even when a child's interpreter is stuck.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import gc
import importlib
import json
import os
import platform
import select
import signal
import socket
import stat
import sys
import time
from typing import Any

from .. import keyring, libraries
from ..channel.endpoint import ChannelClosed, ChannelError, Endpoint
from ..channel.farewell import AFTER_END_S, END_S
from ..channel.messages import PROTOCOL_VERSION, Failed, Prepared, Reap, Reaped, Spawn, Spawned
from ..channel.settings import native
from . import main as worker
from . import servers
from .app.loader import foreign_traceback
from .process import setup

_PR_SET_DUMPABLE = 4
_POLL_S = 0.05
_OPTIONS_BYTES = 1 << 20


class PreloadError(Exception):
    """A module named by ``preload`` cannot be imported here, or cannot be forked after."""


def main(options: dict[str, Any]) -> int:
    """Serve forks over ``options["channel"]`` until the daemon closes it; the process's exit status.

    Returns twice, so to speak: in each forked child it returns that worker's own exit status, up the same short stack,
    so that the interpreter ends as any program's does (threads joined, atexit run).
    """
    undumpable()  # first of all: who had attached to this process would have its children, too
    channel = socket.socket(fileno=options["channel"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the operator's terminal is for the daemon to act on
    try:
        setup.by_line()
        libraries.use([native(folder) for folder in options["libraries"]])
        if "is_ahead" in options:  # it was started before it was known whether it is wanted
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            servers.prepare(options["interface"])
            told = channel.recv(_OPTIONS_BYTES)
            if not told:
                return 0  # nothing is to run here
            options |= json.loads(told)
        endpoint = Endpoint(channel)
        if options.get("is_walled"):
            from ..sandbox import walls  # noqa: F401  # for its workers
        servers.prepare(options["interface"])  # what every worker needs is shared when it is imported before the fork
        with setup.DieWithDaemon(channel):
            _preload(options["preload"], [native(entry) for entry in options["path"]])
    except (libraries.LibraryMissing, PreloadError) as exc:
        code = "setup-failed" if isinstance(exc, libraries.LibraryMissing) else "import-failed"
        _tell(Endpoint(channel), Failed(code, str(exc)))
        return 1
    _tell(endpoint, Prepared(PROTOCOL_VERSION, f"{platform.python_implementation()} {platform.python_version()}"))
    return _ForkServer(endpoint).serve()


def _preload(modules: list[str], path: list[str]) -> None:
    sys.path[:0] = path
    for name in modules:
        before, known = _threads(), _sockets()
        try:
            importlib.import_module(name)
        except BaseException as exc:  # foreign code
            raise PreloadError(f"preload {name}:\n{foreign_traceback(exc)}") from None
        if _threads() > before:
            raise PreloadError(
                f"preload {name}: importing it started a thread, and a process with threads cannot be forked safely. "
                "Remove it from `preload`"
            )
        if opened := _sockets() - known:
            raise PreloadError(
                f"preload {name}: importing it left a socket open ({', '.join(sorted(opened))}), which all workers "
                "would share: let it connect when it is first used, or remove it from `preload`"
            )
    for entry in path:
        if entry in sys.path:  # a preload may have changed the path itself
            sys.path.remove(entry)
    gc.collect()
    gc.freeze()  # else the first full collection in each child copies every page it looks at


def _threads() -> int:
    """How many threads run Python. A library's own, such as those of numpy's linear algebra, know how to be forked."""
    if len(os.listdir("/proc/self/task")) > 1:
        time.sleep(_POLL_S)  # one just started is not known to Python before it has run
    return _thread._count()


def _sockets() -> set[str]:
    """The sockets that are open: each with where it leads, as far as that is known."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the folder's own is closed by now
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(_described(int(name)))
    return found


def _described(fd: int) -> str:
    with socket.socket(fileno=os.dup(fd)) as sock:
        for what, ask in (("to", sock.getpeername), ("at", sock.getsockname)):
            with contextlib.suppress(OSError):
                if address := ask():
                    place = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else os.fsdecode(address)
                    return f"{what} {place}"
    return f"descriptor {fd}"


def undumpable() -> None:
    """Close this process's memory and /proc files to others of the same user (prctl(2), PR_SET_DUMPABLE)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


class _ForkServer:
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._children: dict[int, int] = {}  # worker's number -> pid
        self._grace_s = 0.0

    def serve(self) -> int:
        poller = select.poll()
        poller.register(self._endpoint.fileno(), select.POLLIN)
        while True:
            poller.modify(self._endpoint.fileno(), select.POLLIN | (select.POLLOUT if self._endpoint.outbox else 0))
            poller.poll()
            try:
                self._endpoint.flush()
                channel = self._obey()
            except (ChannelClosed, ChannelError):
                self._endpoint.close()
                self._end_children()
                return 0
            if channel is not None:
                return self._become_worker(channel)

    def _obey(self) -> socket.socket | None:
        """Carry out the next message, if there is one. In a child that it forked: the child's own channel."""
        received = self._endpoint.receive()
        if received is not None:
            message, descriptors = received
            if isinstance(message, Spawn):
                self._grace_s = max(self._grace_s, message.grace_s)
                return self._fork(message.worker, socket.socket(fileno=descriptors[0]))
            if isinstance(message, Reap):
                self._reap(message.worker)
        return None

    def _fork(self, number: int, channel: socket.socket) -> socket.socket | None:
        flush()
        try:
            pid = os.fork()
        except OSError as exc:  # no more processes, or no memory: this goes by, and the workers there are go on
            pid = -(exc.errno or 1)
        if pid == 0:
            return channel
        channel.close()
        if pid > 0:
            self._children[number] = pid
        self._endpoint.send(Spawned(number, pid))
        return None

    def _become_worker(self, channel: socket.socket) -> int:
        os.setsid()  # a group of its own, so that what the app starts can be ended with it
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what the app starts would ignore it, too
        self._endpoint.close()
        self._children.clear()
        keyring.join_own()  # or it would have the keys of whoever is forked from here
        numpy = sys.modules.get("numpy.random")
        if numpy is not None:  # `random` reseeds itself after a fork; numpy's global generator does not
            numpy.seed()
        return worker.main(channel)

    def _reap(self, number: int) -> None:
        pid = self._children.pop(number, None)
        if pid is not None:
            _, status = os.waitpid(pid, 0)
            self._endpoint.send(Reaped(number, status))

    def _end_children(self) -> None:
        deadline = time.monotonic() + self._grace_s + END_S + AFTER_END_S
        while self._children:
            for number, pid in list(self._children.items()):
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    _kill_group(pid)  # what it started; until it is reaped the number is its own
                    os.waitpid(pid, 0)
                    del self._children[number]
            if time.monotonic() >= deadline:
                for pid in self._children.values():
                    _kill_group(pid)
            time.sleep(_POLL_S)


def flush() -> None:
    """What a preload has written and not flushed would be written by each child once more."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)


def _kill_group(pid: int) -> None:
    for send in (os.killpg, os.kill):  # a child that has not yet called setsid leads no group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(pid, signal.SIGKILL)


def _tell(endpoint: Endpoint, message: Prepared | Failed) -> None:
    with contextlib.suppress(ChannelClosed):
        endpoint.send(message)
