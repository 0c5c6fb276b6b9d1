"""The API's HTTP server: connections, routing, and every error as JSON with a stable code.

Connections are accepted by the daemon's own listener and admitted one by one, so that who is at the other end is known
before a byte of theirs is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from pydantic import BaseModel

from ..daemon.main import Daemon
from ..daemon.system.kinship import PeerKind, holder_of, peer_of, peer_pid, peer_uid, tcp_end
from ..daemon.system.tasks import KeptTasks
from ..daemon.tenants.lookup import UnknownApp
from ..http1.errors import ProtocolError
from . import page
from .access import Access
from .description import describe
from .endpoints import ENDPOINTS, LOAD_MAX_BYTES, Call, Endpoint, Lines
from .errors import CODES, ApiError, of_unknown
from .executing import execute
from .history import History
from .hosting import Hosting
from .journal import MEDIA_TYPE
from .models import ErrorModel, Health
from .request import Answer, Handler, Request, Routes
from .streaming import Along, stream

log = logging.getLogger("caddysnake.admin")

CONNECTIONS_MAX = 256
_SHUTDOWN_S = 2.0
_DISMISSED_MAX = 16
_UNKNOWN_MAX = 16
_DISMISSED_S = 1.0
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_REFUSED = b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
_OUTSIDE = "call it from outside of the apps: from a shell, a timer, or in a container by exec, and wait for the answer"
_NO_USER = ErrorModel(
    error="a user who runs apps may not use the admin API",
    code="forbidden-user",
    hint="call it as the daemon's user, or as root",
)
_NO_PROCESS = {
    PeerKind.OURS: "a process that the daemon, or one of its apps, has started may not use the admin API",
    PeerKind.ENDED: "whoever connected to the admin API has ended",
    PeerKind.UNKNOWN: "it cannot be told whether an app has started the process that calls the admin API",
}


class Server:
    """Answers on connections that ``accept`` is given."""

    def __init__(self, daemon: Daemon, access: Access, name: str, history: History) -> None:
        """``access`` says who may call, and ``name`` is where."""
        self._daemon = daemon
        self.access = access
        self.name = name
        self._hosting = Hosting(self._guard, lambda exc: _error(_unread(exc)), CONNECTIONS_MAX, _SHUTDOWN_S)
        self._routes = Routes()
        for endpoint in ENDPOINTS:
            self._routes.add(endpoint.method, endpoint.path, self._handler(endpoint))
        self._routes.add("GET", "/openapi.json", self._description)
        self._routes.add("POST", "/apps/{key}/exec", self._execute)
        for path, (content, media_type) in page.FILES.items():
            self._routes.add("GET", path, _page(content, media_type))
        self._history = history
        self._refused: set[int] = set()
        self._dismissed: deque[socket.socket] = deque()
        self._unknown = KeptTasks()
        self._finding_out = asyncio.Lock()

    async def stop(self) -> None:
        """End all connections; requests that are being answered get ``_SHUTDOWN_S`` seconds."""
        for task in self._unknown:
            task.cancel()
        await self._hosting.stop()
        for sock in self._dismissed:
            sock.close()

    def has_room(self) -> bool:
        """Whether one more may be accepted."""
        return self._hosting.has_room()

    def accept(self, sock: socket.socket) -> None:
        """Serve a new connection, if it is somebody's who may call."""
        desired = self._daemon.running.desired
        if sock.family == socket.AF_UNIX:
            self._admit(sock, _looked(lambda: self._refusal(sock, peer_uid(sock), lambda: peer_of(sock))))
        elif len(desired.unwalled) == len(desired.apps) + len(desired.templates):
            self._admit(sock, None)
        elif len(self._unknown) < _UNKNOWN_MAX:  # a sandbox says of ports whether they may be reached, not by whom
            self._unknown.begin(self._find_out(sock))
        else:
            sock.close()

    async def _find_out(self, sock: socket.socket) -> None:
        """Admit who comes over TCP, unless it is an app. One after the other: it takes a while."""

        def look() -> ErrorModel | None:
            end = tcp_end(sock)
            return None if end is None else self._refusal(sock, end[0], lambda: holder_of(end[1]))

        try:
            async with self._finding_out:
                refusal = await asyncio.to_thread(_looked, look)
            self._admit(sock, refusal)
        except BaseException:
            sock.close()
            raise

    def _admit(self, sock: socket.socket, refusal: ErrorModel | None) -> None:
        if refusal is None:
            self._hosting.accept(sock)
            return
        body = refusal.model_dump_json().encode()
        head = _REFUSED % (CODES[refusal.code].status, len(body))
        with contextlib.suppress(OSError):
            sock.send(head + body, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            sock.shutdown(socket.SHUT_WR)
        # Closed at once, it would break what they are about to send, and they would not read the reason.
        self._dismissed.append(sock)
        if len(self._dismissed) > _DISMISSED_MAX:
            self._dismissed.popleft().close()
        asyncio.get_running_loop().call_later(_DISMISSED_S, sock.close)

    def _refusal(self, sock: socket.socket, uid: int, comes_from: Callable[[], PeerKind]) -> ErrorModel | None:
        """Why whoever has connected is refused. A user who runs apps is one whose apps may try this; where they have
        the daemon's own user, they are told by their descent. Root is neither, unless the daemon is.
        """
        if uid in self._daemon.running.origins.uids:
            self._warn("a user who runs apps tried the admin API", sock, uid)
            return _NO_USER
        if uid == 0 != os.geteuid():
            return None
        peer = comes_from()
        if peer is PeerKind.OUTSIDE:
            return None
        if peer is not PeerKind.ENDED:
            self._warn("a process of an app tried the admin API", sock, uid)
        return ErrorModel(error=_NO_PROCESS[peer], code="forbidden-process", hint=_OUTSIDE)

    def _warn(self, what: str, sock: socket.socket, uid: int) -> None:
        """Once for each user."""
        if uid not in self._refused:
            self._refused.add(uid)
            log.warning(what, extra={"fields": {"uid": uid, "pid": peer_pid(sock)}})

    # -- requests ---------------------------------------------------------------------------------------------

    async def _guard(self, request: Request) -> Answer:
        begun = time.monotonic()
        request.caller = self._caller(request)
        try:
            is_page = request.path in page.FILES and request.method in ("GET", "HEAD")
            denial = self.access.denial(request.headers, is_page=is_page)
            if denial is not None:
                raise ApiError(denial.code, denial.text, denial.hint)
            answer = await self._routes.find(request)(request)
        except Exception as exc:
            answer = _error(self._understood(request, exc))
        if request.method not in ("GET", "HEAD"):
            fields = {
                "caller": request.caller,
                "method": request.method,
                "uri": request.target[:200],
                "status": answer.status,
                "duration": round(time.monotonic() - begun, 3),
            }
            log.info("admin request", extra={"fields": fields})
        return answer

    def _understood(self, request: Request, exc: Exception) -> ApiError:
        match exc:
            case UnknownApp():
                return of_unknown(exc)
            case ApiError():
                return exc
            case ProtocolError():
                return _unread(exc)
        fields = {"method": request.method, "uri": request.target[:200]}
        log.error("admin request failed", exc_info=exc, extra={"fields": fields})
        return ApiError("internal", f"{type(exc).__name__}: {exc}", "the log has the traceback")

    def _handler(self, endpoint: Endpoint) -> Handler:
        async def handle(request: Request) -> Answer:
            body = await _body(request) if endpoint.takes else b""
            call = Call(self._daemon, self._history, self.name, request, body)
            if endpoint.streams and MEDIA_TYPE in request.headers.get("accept", ""):
                lines = Along()
                work = asyncio.ensure_future(self._outcome(endpoint, call._replace(tell=lines.tell)))
                return await request.connection.stream(_typed(MEDIA_TYPE), stream(lines, work))
            answer = await endpoint.handler(call)
            if isinstance(answer, Lines):
                return await request.connection.stream(_typed(answer.media_type), answer.pieces)
            if isinstance(answer, Answer):
                return answer._replace(headers={**_HEADERS, **answer.headers})
            status = 503 if isinstance(answer, Health) and endpoint.unhealthy and not answer.ready else 200
            # Of a thousand apps this is a long text.
            return await asyncio.to_thread(_json, answer, status)

        return handle

    async def _execute(self, request: Request) -> Answer:
        return await execute(self._daemon, request, await _body(request))

    async def _outcome(self, endpoint: Endpoint, call: Call) -> tuple[int, bytes]:
        """The status and the JSON of the answer, when it comes line by line."""
        try:
            answer = await endpoint.handler(call)
            assert not isinstance(answer, Answer | Lines)
            response = await asyncio.to_thread(_json, answer, 200)
        except Exception as exc:
            response = _error(self._understood(call.request, exc))
        return response.status, response.body or b""

    def _caller(self, request: Request) -> str:
        """Who calls, as far as that is known."""
        sock = request.connection.sock
        try:
            if self.access.is_local:
                return f"uid {peer_uid(sock)}, pid {peer_pid(sock)}"
            return str(sock.getpeername()[0])
        except (OSError, IndexError):
            return "?"

    async def _description(self, request: Request) -> Answer:
        return _json(describe(), 200)


def _looked(look: Callable[[], ErrorModel | None]) -> ErrorModel | None:
    """What ``look`` says of a caller; that there is nothing left to look with is no word on who calls."""
    try:
        return look()
    except OSError as exc:
        error = f"who calls cannot be looked at: {exc.strerror}"
        return ErrorModel(error=error, code="resources", hint=CODES["resources"].remedy)


async def _body(request: Request) -> bytes:
    """Raises ``ProtocolError``, and ``ApiError`` for one that is compressed."""
    coding = request.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise ApiError("unsupported-media-type", f"the content is in {coding[:80]!r}", "send it as it is")
    return await request.connection.read(LOAD_MAX_BYTES)


def _unread(exc: ProtocolError) -> ApiError:
    """What it is to a caller that its request cannot be read."""
    if exc.status == 413:
        return ApiError("too-large", str(exc), "send less")
    if exc.status == 408:
        return ApiError("request-timeout", str(exc), "send it at once")
    return ApiError("bad-request", f"the request cannot be read: {exc}", "see GET /openapi.json")


def _page(body: bytes, media_type: str) -> Handler:
    async def handle(request: Request) -> Answer:
        return Answer(200, body, {**_typed(media_type), **page.HEADERS})

    return handle


def _typed(media_type: str) -> dict[str, str]:
    return {"Content-Type": media_type, **_HEADERS}


def _json(answer: BaseModel | dict[str, Any], status: int, headers: Mapping[str, str] = {}) -> Answer:
    data = answer.model_dump(mode="json") if isinstance(answer, BaseModel) else answer
    try:
        body = orjson.dumps(data, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a surrogate, of a folder's name that is not UTF-8: the other apps are told of all the same
        body = json.dumps(data, default=str, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    return Answer(status, body, {**_typed("application/json"), **headers})


def _error(exc: ApiError) -> Answer:
    answer = ErrorModel.model_validate({"error": str(exc), "code": exc.code, "hint": exc.hint, **exc.more})
    return _json(answer, exc.status, exc.headers)
