"""The API's HTTP server, with aiohttp: connections, routing, and every error as JSON with a stable code.

Connections are accepted by the daemon's own listener and given to aiohttp one by one, so that who is at the other end
is known before a byte of theirs is read.
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
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from pydantic import BaseModel

from ..daemon.main import Daemon
from ..daemon.system.kinship import PeerKind, holder_of, peer_of, peer_pid, peer_uid, tcp_end
from ..daemon.system.tasks import KeptTasks
from ..daemon.tenants.lookup import UnknownApp
from . import page
from .access import Access, Denial
from .description import describe
from .endpoints import ENDPOINTS, LOAD_MAX_BYTES, Call, Endpoint, Lines, Text
from .errors import CODES, ApiError, of_unknown
from .executing import execute
from .history import History
from .hosting import BODY_S, Hosting
from .models import ErrorModel, Health
from .streaming import MEDIA_TYPE, Along, stream

log = logging.getLogger("caddysnake.admin")

CONNECTIONS_MAX = 256
_SHUTDOWN_S = 2.0
_DISMISSED_MAX = 16
_UNKNOWN_MAX = 16
_DISMISSED_S = 1.0
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "caddysnake"}
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
        self._hosting = Hosting(CONNECTIONS_MAX, _SHUTDOWN_S)
        self._history = history
        self._refused: set[int] = set()
        self._dismissed: deque[socket.socket] = deque()
        self._unknown = KeptTasks()
        self._finding_out = asyncio.Lock()

    async def start(self) -> None:
        """Be ready for connections."""
        app = web.Application(client_max_size=LOAD_MAX_BYTES, middlewares=[self._guard])
        for endpoint in ENDPOINTS:
            app.router.add_route(endpoint.method, _pattern(endpoint.path), self._handler(endpoint))
            if endpoint.method == "GET":
                app.router.add_route("HEAD", _pattern(endpoint.path), self._handler(endpoint))
        app.router.add_get("/openapi.json", self._description)
        app.router.add_post(_pattern("/apps/{key}/exec"), self._execute)
        for path, file in page.FILES.items():
            app.router.add_get(path, _page(await asyncio.to_thread(page.read, file), file.media_type))
        await self._hosting.start(app)

    async def stop(self) -> None:
        """End all connections; requests that are being answered get ``_SHUTDOWN_S`` seconds."""
        for task in self._unknown:
            task.cancel()
        await self._hosting.stop()
        for sock in self._dismissed:
            sock.close()

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

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        begun = time.monotonic()
        try:
            is_page = request.path in page.FILES and request.method in ("GET", "HEAD")
            denial = self.access.denial(request.headers, is_page=is_page)
            response = _denied(denial) if denial is not None else await handler(request)
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            response = _error(self._understood(request, exc))
            if isinstance(exc, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = ", ".join(sorted(exc.allowed_methods))
        response.headers.update(_HEADERS)
        if request.method not in ("GET", "HEAD"):
            fields = {
                "caller": self._caller(request),
                "method": request.method,
                "uri": request.path_qs[:200],
                "status": response.status,
                "duration": round(time.monotonic() - begun, 3),
            }
            log.info("admin request", extra={"fields": fields})
        return response

    def _understood(self, request: web.Request, exc: Exception) -> ApiError:
        match exc:
            case UnknownApp():
                return of_unknown(exc)
            case ApiError():
                return exc
            case web.HTTPRequestEntityTooLarge():
                return ApiError("too-large", f"the body has more than {LOAD_MAX_BYTES} bytes", "send less")
            case web.HTTPRequestTimeout():
                return ApiError("request-timeout", f"the body did not come within {BODY_S:g} s", "send it at once")
            case web.HTTPMethodNotAllowed():
                hint = f"allowed: {', '.join(sorted(exc.allowed_methods))}"
                return ApiError("method-not-allowed", f"{request.path[:200]} knows no {request.method}", hint)
            case web.HTTPNotFound():
                return ApiError("not-found", f"there is no {request.path[:200]}", "GET /openapi.json lists all")
            case web.HTTPException() | web.RequestPayloadError() | ContentEncodingError():
                return ApiError("bad-request", f"the request cannot be read: {exc}", "see GET /openapi.json")
        fields = {"method": request.method, "uri": request.path_qs[:200]}
        log.error("admin request failed", exc_info=exc, extra={"fields": fields})
        return ApiError("internal", f"{type(exc).__name__}: {exc}", "the log has the traceback")

    def _handler(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = Call(
                daemon=self._daemon,
                history=self._history,
                admin=self.name,
                caller=self._caller(request),
                path=request.match_info,
                query=request.query,
                body=await self._hosting.read(request) if endpoint.takes else b"",
                content_type=request.content_type,
                accept=request.headers.get("Accept", ""),
                is_there=lambda: request.transport is not None,
            )
            if endpoint.streams and MEDIA_TYPE in call.accept:
                lines = Along()
                return await stream(request, lines, self._outcome(request, endpoint, call._replace(tell=lines.tell)))
            answer = await endpoint.handler(call)
            if isinstance(answer, Lines):
                return await _pass_on(request, answer)
            if isinstance(answer, Text):
                return web.Response(body=answer.body, headers={"Content-Type": answer.media_type})
            status = 503 if isinstance(answer, Health) and endpoint.unhealthy and not answer.ready else 200
            # Of a thousand apps this is a long text.
            return await asyncio.to_thread(_json, answer, status)

        return handle

    async def _execute(self, request: web.Request) -> web.StreamResponse:
        return await execute(self._daemon, request, await self._hosting.read(request))

    async def _outcome(self, request: web.Request, endpoint: Endpoint, call: Call) -> tuple[int, bytes]:
        """The status and the JSON of the answer, when it comes line by line."""
        try:
            answer = await endpoint.handler(call)
            assert not isinstance(answer, Text | Lines)
            response = await asyncio.to_thread(_json, answer, 200)
        except Exception as exc:
            response = _error(self._understood(request, exc))
        assert isinstance(response.body, bytes)
        return response.status, response.body

    def _caller(self, request: web.Request) -> str:
        """Who calls, as far as that is known."""
        sock = None if request.transport is None else request.transport.get_extra_info("socket")
        if sock is None or not self.access.is_local:
            return request.remote or "?"
        uid, pid = peer_uid(sock), peer_pid(sock)
        return f"uid {uid}, pid {pid}"

    async def _description(self, request: web.Request) -> web.Response:
        return _json(describe(), 200)


def _looked(look: Callable[[], ErrorModel | None]) -> ErrorModel | None:
    """What ``look`` says of a caller; that there is nothing left to look with is no word on who calls."""
    try:
        return look()
    except OSError as exc:
        error = f"who calls cannot be looked at: {exc.strerror}"
        return ErrorModel(error=error, code="resources", hint=CODES["resources"].remedy)


async def _pass_on(request: web.Request, lines: Lines) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": lines.media_type, **_HEADERS})
    await response.prepare(request)
    try:
        if request.method != "HEAD":
            async for piece in lines.pieces:
                if piece:
                    await response.write(piece)
                elif request.transport is None or request.transport.is_closing():
                    break
    except ConnectionError:
        pass  # whoever asked has left
    finally:
        await lines.pieces.aclose()
    return response


def _pattern(path: str) -> str:
    """``path`` as aiohttp writes it. An app's key may hold slashes."""
    return path.replace("{key}", "{key:.+}")


def _page(body: bytes, media_type: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": media_type, **page.HEADERS})

    return handle


def _json(answer: BaseModel | dict[str, Any], status: int) -> web.Response:
    data = answer.model_dump(mode="json") if isinstance(answer, BaseModel) else answer
    try:
        body = orjson.dumps(data, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a surrogate, of a folder's name that is not UTF-8: the other apps are told of all the same
        body = json.dumps(data, default=str, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")


def _error(exc: ApiError) -> web.Response:
    answer = ErrorModel.model_validate({"error": str(exc), "code": exc.code, "hint": exc.hint, **exc.more})
    response = _json(answer, exc.status)
    if exc.status == 503:
        response.headers["Retry-After"] = "1"
    return response


def _denied(denial: Denial) -> web.Response:
    return _error(ApiError(denial.code, denial.text, denial.hint))
