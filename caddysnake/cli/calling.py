"""A running daemon's admin API: whether it may be trusted, and how commands call it. ``finding`` says where that is.

HTTP is spoken without a library, and nothing of the daemon's is imported: a command that asks how things are should
answer at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

from ..doctor.findings import Silence
from .reading import CommandFailed

PATIENCE_S = 30.0
_LOOK_S = 3.0
_ALIVE_S = 5.0
"""A daemon that says nothing for so long, to whatever it is asked, hangs, unless it loads another version."""
_LONGEST_S = 3600.0
_LINES = "application/x-ndjson"
_SILENCE_S = 60.0
"""The daemon says something more often, while there is something to wait for."""
_LONGEST_BYTES = 64 * 1024 * 1024
_LINE_MAX = 64 * 1024


class CallFailed(CommandFailed):
    """The daemon was not reached, or would not. ``answer`` is what it said, if it did."""

    def __init__(
        self,
        text: str,
        answer: Mapping[str, Any] | None = None,
        hint: str | None = None,
        silence: Silence = Silence.UNKNOWN,
    ) -> None:
        self.answer = answer or {}
        self.silence = silence
        super().__init__(text, self.answer.get("hint", hint))


class Target(NamedTuple):
    """Where a daemon's API is: a unix socket's path, or a host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix/{self.path}" if self.path else f"{host}:{self.port}"


def path_of(app: str, what: str = "") -> str:
    """The path of the app ``app``, or of ``what`` of it."""
    return f"/apps/{quote(app, safe='')}{what}"


class _Answer(NamedTuple):
    """The head of an answer, and where the rest is read."""

    status: int
    media_type: str
    length: int
    content: BinaryIO


def call(target: Target, method: str, path: str, timeout: float | None = PATIENCE_S) -> dict[str, Any]:
    """What the API answers, parsed, also when that is 503 with a state. ``timeout`` None: as long as it takes, an hour
    at most. Raises ``CallFailed``.
    """
    with _asked(target, method, path, timeout=timeout or _LONGEST_S) as sock:
        return _content(target, _answer(sock))


def stream(target: Target, path: str) -> Iterator[bytes]:
    """What the API answers to a GET, line by line, as it comes and for as long as it does. Raises ``CallFailed``."""
    with _asked(target, "GET", path) as sock:
        answer = _answer(sock)
        if answer.status >= 400:
            _content(target, answer)
        sock.settimeout(None)
        yield from _lines(answer)


def follow(
    target: Target, path: str, body: bytes | None, hear: Callable[[str, str], None], change: str
) -> dict[str, Any]:
    """What the API answers to a POST, parsed; until then ``hear(app, line)`` gets each line that is told of an app.

    Who presses Ctrl-C cancels the ``change``, and hears what became of it. Raises ``CallFailed``.
    """

    def cancel(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who presses it again leaves
        print("cancelling …", file=sys.stderr)
        try:
            call(target, "DELETE", change)
        except CallFailed as exc:
            print(f"Warning: {exc}", file=sys.stderr)

    headers = {"Accept": _LINES} | ({} if body is None else {"Content-Type": "text/caddyfile"})
    before = signal.signal(signal.SIGINT, cancel)
    try:
        with _asked(target, "POST", path, body, _SILENCE_S, headers) as sock:
            answer = _answer(sock)
            if answer.media_type != _LINES:
                return _content(target, answer)
            for said in map(json.loads, _lines(answer)):
                if "answer" in said:
                    return _accepted(target, said["status"], said["answer"])
                if "line" in said:
                    hear(said["app"], said["line"])
    finally:
        signal.signal(signal.SIGINT, before)
    raise CallFailed(f"the daemon at {target} has ended meanwhile: see its log")


def switch(target: Target, path: str, body: bytes, protocol: str) -> socket.socket:
    """A connection to the daemon that speaks ``protocol`` from now on. Raises ``CallFailed``."""
    headers = {"Connection": "Upgrade", "Upgrade": protocol, "Content-Type": "application/json"}
    with _asked(target, "POST", path, body, headers=headers) as sock:
        answer = _answer(sock)
        if answer.status != 101:
            _content(target, answer)
            raise _no_api(target, answer.status)
        found = sock.dup()
        found.settimeout(None)
        return found


@contextlib.contextmanager
def _asked(
    target: Target,
    method: str,
    path: str,
    body: bytes | None = None,
    timeout: float = PATIENCE_S,
    headers: Mapping[str, str] | None = None,
) -> Iterator[socket.socket]:
    """A connection on which that was asked, and is being answered. Raises ``CallFailed``, also for what goes wrong
    while it is used.
    """
    host = "localhost" if target.path else str(target)
    fields = {"Host": host, **({} if target.path else {"Origin": f"http://{host}"}), **(headers or {})}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    version = "1.1" if "Upgrade" in fields else "1.0"  # in which an answer ends with its connection
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    try:
        with _connect(target, min(timeout, _ALIVE_S)) as sock:
            # Who is refused is told before anything is read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall("\r\n".join(lines).encode() + (body or b""))
            _await_answer(sock, target, timeout)
            sock.settimeout(min(timeout, _SILENCE_S))
            yield sock
    except PermissionError as exc:
        why = exc.strerror or "not permitted"
        text = f"cannot use the admin API at {target}: {why}; call as the daemon's user, or root"
        raise CallFailed(text, silence=Silence.DENIED) from None
    except TimeoutError:
        text = f"the admin API at {target} does not answer: see the daemon's log"
        raise CallFailed(text, silence=Silence.HANGS) from None
    except OSError as exc:
        raise CallFailed(f"cannot reach the admin API at {target}: {exc.strerror or exc}") from None


def _connect(target: Target, timeout: float) -> socket.socket:
    """A connection to a daemon of this user's, of root's, or, for root, to any. Raises ``OSError``."""
    if not target.path:
        return socket.create_connection((target.host, target.port), timeout)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(target.path)
        if is_strangers(uid := peer_of(sock)):
            raise PermissionError(1, f"user {uid} answers there, who is neither this user nor root")
    except BaseException:
        sock.close()
        raise
    return sock


def peer_of(sock: socket.socket) -> int:
    """The user who listens where ``sock`` is connected to (unix(7), SO_PEERCRED)."""
    return _peer(sock)[1]


def _peer(sock: socket.socket) -> array[int]:
    """Its pid, user and group."""
    return array("i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))


def is_strangers(uid: int) -> bool:
    """A daemon of ``uid`` is not asked: it is neither this user's nor root's, and this is not root."""
    return os.geteuid() not in (0, uid) and uid != 0


def _answer(sock: socket.socket) -> _Answer:
    """The answer to what was asked. Raises ``OSError``."""
    content = sock.makefile("rb")
    status = content.readline(_LINE_MAX)[9:12]
    if not status:
        raise ConnectionResetError("it closed the connection without an answer")
    fields = {}
    while (line := content.readline(_LINE_MAX)).strip():
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.lower()] = value.strip()
    length, media_type = fields.get("content-length", ""), fields.get("content-type", "").partition(";")[0]
    most = min(int(length), _LONGEST_BYTES) if length.isdecimal() else _LONGEST_BYTES
    return _Answer(int(status) if status.isdigit() else 0, media_type, most, content)


def _lines(answer: _Answer) -> Iterator[bytes]:
    """Those that are whole: who has ended meanwhile may leave one that is not."""
    while (line := answer.content.readline()).endswith(b"\n"):
        yield line


def _content(target: Target, answer: _Answer) -> dict[str, Any]:
    try:
        told = json.loads(answer.content.read(answer.length))
    except ValueError:
        told = None
    return _accepted(target, answer.status, told)


def _accepted(target: Target, status: int, told: Any) -> dict[str, Any]:
    """What was ``told``, unless that is an error. Raises ``CallFailed``."""
    if not isinstance(told, dict) or (status >= 400 and status != 503 and "code" not in told):
        raise _no_api(target, status)
    if status >= 400 and "code" in told:
        raise CallFailed(str(told.get("error", status)), told)
    return told


def _no_api(target: Target, status: int) -> CallFailed:
    return CallFailed(f"{target} is not caddysnake's admin API: it answered {status}")


def _await_answer(sock: socket.socket, target: Target, timeout: float) -> None:
    """Wait until something comes on ``sock``. Raises ``CallFailed`` when the daemon answers nobody, or takes longer."""
    until, is_alive = time.monotonic() + timeout, False
    while not select.select([sock], [], [], min(_LOOK_S, timeout))[0]:
        left_s = until - time.monotonic()
        if timeout <= _LOOK_S or (left_s <= 0 and not is_alive):
            raise _silent(target, sock)
        if left_s <= 0:
            raise CallFailed(f"the daemon is not done after {timeout:g} s: see its log")
        try:
            call(target, "GET", "/health/live", min(_ALIVE_S, max(left_s, 1.0)))
        except CallFailed as exc:
            is_answering = select.select([sock], [], [], 0)[0]
            if not exc.answer and not is_answering:  # else it refuses, and so it is there
                raise
        is_alive = True


def _silent(target: Target, sock: socket.socket) -> CallFailed:
    """What to say of a daemon that answers nobody, and what ends that."""
    text, pid = f"the admin API at {target} does not answer", _peer(sock)[0] if target.path else 0
    if _is_upgrading(pid):
        return CallFailed(f"the daemon, process {pid}, is loading another version", hint="ask again in a moment")
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as opened:
            state = opened.read().rpartition(") ")[2][:1]
    except OSError:
        state = ""
    if not state or pid == 1:
        return CallFailed(f"{text}: see the daemon's log", silence=Silence.HANGS)
    if state in "Tt":
        text, hint = f"{text}: process {pid} has been stopped", f"`kill -CONT {pid}` lets it go on"
        return CallFailed(text, hint=hint, silence=Silence.STOPPED)
    hint = f"see its log; `kill -KILL {pid}` ends it, and it can be started again"
    return CallFailed(f"{text}: process {pid} hangs", hint=hint, silence=Silence.HANGS)


def _is_upgrading(pid: int) -> bool:
    """The daemon ``pid`` loads another version: a child with the same command line stands in (``stand_in``)."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as opened:
            return _words_of(pid) in map(_words_of, opened.read().split())
    except OSError:
        return False


def _words_of(pid: int | str) -> list[bytes]:
    """What it was started with, but for the name of the interpreter, which may be a longer one from then on."""
    with open(f"/proc/{pid}/cmdline", "rb") as opened:
        return opened.read().split(b"\0")[1:]
