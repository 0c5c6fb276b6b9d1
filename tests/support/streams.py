"""Streams without an end, of ``worker/turning_apps.py``, and short requests beside them."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Collection, Iterator

from support.daemon import cpu_s
from support.rawhttp import RawClient
from support.worker import PATIENCE_S

UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SENDING = ["large", "small", "slow", "nothing", "hints", "trailers", "websocket", "denial", "file"]
RECEIVING = {
    "upload": b"10000\r\n" + b"x" * 65536 + b"\r\n",
    "upload_in_tiny_chunks": b"1\r\nx\r\n" * 20_000,
    "taking": b"\x82\xfe\x01\x00abcd" + b"x" * 256,
    "taking_nothing": b"\x82\x80abcd" * 20_000,
    "taking_pings": b"\x89\x80abcd" * 20_000,
}


def ask(sock: socket.socket, kind: str, host: str = "a") -> None:
    """Begin a request for one of ``turning_apps``."""
    fields = UPGRADE if kind in ("websocket", "denial") or kind.startswith("taking") else b""
    if kind.startswith("upload"):
        head = b"POST /upload HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % host.encode()
        sock.sendall(head)
    else:
        path = b"taking" if kind.startswith("taking") else kind.encode()
        sock.sendall(b"GET /%s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (path, host.encode(), fields))


@contextlib.contextmanager
def beside(socks: list[socket.socket], turn: Callable[[socket.socket, int], object], events: int) -> Iterator[None]:
    """Do ``turn`` for each of the sockets whenever it is ready, in a thread."""
    is_over = threading.Event()

    def work() -> None:
        poller = select.epoll()
        by_fd = {sock.fileno(): sock for sock in socks}
        for sock in socks:
            sock.setblocking(False)
            poller.register(sock, events)
        with poller, contextlib.suppress(ConnectionError):
            while not is_over.is_set():
                for fd, event in poller.poll(0.05):
                    with contextlib.suppress(BlockingIOError):
                        turn(by_fd[fd], event)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(PATIENCE_S)


def work_of_others(connect: Callable[[], socket.socket], pids: Collection[int], host: str = "a") -> list[float]:
    """Seconds that processes work while each of some short requests waits, however much else the machine does."""
    took = []
    with RawClient(connect()) as other:
        for _ in range(15):
            began = cpu_s(*pids)
            assert other.ask(b"GET /notes HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode()).status == 200
            took.append(cpu_s(*pids) - began)
    return took
