"""Requests that a new worker answers before it counts as ready: the daemon asks it over a connection of its own.

What comes back may be a tenant's word for anything: it is parsed by llhttp, bounded, and only its status counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import NamedTuple

from ...channel.endpoint import ChannelClosed
from ...channel.messages import TAKE_TRUSTED, Take
from ...http1.phrases import PHRASES
from .worker import Worker

_READ_BYTES = 64 * 1024
_ENOUGH_BYTES = 64 << 20
"""Of an answer that does not end: so much of it is as good as the whole."""
_SHOWN_BYTES = 600
_ENDING_S = 2.0
_RETRY_S = 0.01


class WarmUp(NamedTuple):
    """What is asked. ``expect``: statuses, or their classes such as ``2xx``."""

    paths: tuple[str, ...]
    host: str = "localhost"
    timeout_s: float = 10.0
    expect: tuple[str, ...] = ("2xx", "3xx")


class _Answer:
    """Hears what llhttp finds."""

    def __init__(self) -> None:
        self.beginning = b""
        self.size = 0
        self.is_complete = False
        from ...http1.llhttp import HttpResponseParser  # only where somebody wants a warm-up

        self._parser = HttpResponseParser(self)

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        self.beginning += body[: _SHOWN_BYTES - len(self.beginning)]

    def on_message_complete(self) -> None:
        self.is_complete = self.status >= 200


async def warm_up(worker: Worker, asked: WarmUp) -> str | None:
    """Ask for every path; why ``worker``, which is ready, is not; None. One that ends says so by itself."""
    for path in asked.paths:
        try:
            async with asyncio.timeout(asked.timeout_s):
                failure = await _ask(worker, path, asked)
        except TimeoutError:
            failure = f"was not answered within {asked.timeout_s:g}s"
        except OSError as exc:
            failure = f"could not be made: {exc.strerror}"
        if failure is not None:
            if worker.ended.is_set():
                return None
            return f"the warm-up request GET {path} {failure}"
    return None


async def _ask(worker: Worker, path: str, asked: WarmUp) -> str | None:
    from ...http1.llhttp import HttpParserError

    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        with theirs:
            while True:  # the kernel may take no more descriptors just now
                if _give(worker, theirs.fileno()):
                    break
                await asyncio.sleep(_RETRY_S)
        head = f"GET {path} HTTP/1.1\r\nHost: {asked.host}\r\nUser-Agent: caddysnake-warmup\r\nAccept: */*\r\n"
        forwarded = f"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: {asked.host}\r\n"
        loop = asyncio.get_running_loop()
        answer = _Answer()
        try:
            await loop.sock_sendall(ours, f"{head}{forwarded}Connection: close\r\n\r\n".encode())
            while not answer.is_complete and answer.size < _ENOUGH_BYTES:
                data = await loop.sock_recv(ours, _READ_BYTES)
                if not data:
                    break
                answer.feed(data)
        except (ConnectionError, HttpParserError):
            pass
        if answer.is_complete or answer.size >= _ENOUGH_BYTES:
            return _judge(answer, asked.expect)
    with contextlib.suppress(TimeoutError):  # it may be on its way to its end, which it tells itself
        async with asyncio.timeout(_ENDING_S):
            await worker.ended.wait()
    return "was not answered to its end" + (f" (it began with {answer.status})" if answer.status else "")


def _give(worker: Worker, fd: int) -> bool:
    slot = worker.slots.reserve()
    if slot is None:
        return False
    try:
        if not worker.peer.hand_over(Take(slot, TAKE_TRUSTED), [fd]):
            worker.slots.put_back(slot)
            return False
    except ChannelClosed:
        pass  # its pidfd will say the rest
    worker.slots.disown(slot)
    return True


def _judge(answer: _Answer, expect: tuple[str, ...]) -> str | None:
    status = answer.status
    if f"{status}" in expect or f"{status // 100}xx" in expect:
        return None
    text = answer.beginning.decode("utf-8", "replace").strip()
    said = f": {text}" if text else ""
    return f"was answered with {status} {PHRASES.get(status, '')}".rstrip() + f" (expected {'|'.join(expect)}){said}"
