"""Loads that `wrk` does not make: `python -m benchmarks.client KIND PORT PATH CONNECTIONS SIZE SECONDS`.

Plain sockets and one epoll, so that it costs less than what it measures: requests and messages are made beforehand, and
of answers only the length is looked at. One line of JSON in the end.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Callable

BUFFER = bytearray(1 << 20)
OPEN_S = 30.0
PIECE = bytes(64 * 1024)


def connected(port: int) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", port), timeout=OPEN_S)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def head(method: str, path: str, *fields: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", "")).encode()


def answer_head(opened: socket.socket, status: bytes) -> bytes:
    """Read a response's head; what came of its body already."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = opened.recv(65536)
        if not piece:
            raise SystemExit(f"the connection ended after {data!r}")
        data += piece
    if not data.startswith(b"HTTP/1.1 " + status):
        raise SystemExit(f"not {status.decode()}: {data[:200]!r}")
    return data.partition(b"\r\n\r\n")[2]


def percentiles(times: list[float]) -> dict[str, float]:
    times.sort()
    found = {}
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)):
        found[f"{name}_ms"] = times[min(int(len(times) * share), len(times) - 1)] * 1000 if times else 0.0
    return found


def frame_from_client(payload: bytes) -> bytes:
    """A binary message, masked with zeros: RFC 6455, section 5."""
    return b"\x82" + _length(len(payload), 0x80) + bytes(4) + payload


def _length(size: int, mask_bit: int) -> bytes:
    if size < 126:
        return bytes([mask_bit | size])
    if size < 1 << 16:
        return bytes([mask_bit | 126]) + size.to_bytes(2, "big")
    return bytes([mask_bit | 127]) + size.to_bytes(8, "big")


def echo(port: int, path: str, connections: int, size: int, seconds: float) -> dict[str, float]:
    """WebSocket messages that come back, one under way for each connection."""
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    payload = bytes(size)
    message = frame_from_client(payload)
    wanted = 1 + len(_length(size, 0)) + size
    poll = select.epoll()
    open_: dict[int, socket.socket] = {}
    for _ in range(connections):
        each = connected(port)
        each.sendall(head("GET", path, *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
        if answer_head(each, b"101"):
            raise SystemExit("a message came before one was sent")
        open_[each.fileno()] = each
        poll.register(each, select.EPOLLIN)
    missing = dict.fromkeys(open_, wanted)
    sent = {}
    times: list[float] = []
    begun = time.perf_counter()
    for number, each in open_.items():
        sent[number] = time.perf_counter()
        each.sendall(message)
    end = begun + seconds
    while (now := time.perf_counter()) < end:
        for number, _ in poll.poll(end - now):
            each = open_[number]
            each.setblocking(False)
            got = each.recv_into(BUFFER)
            if not got:
                raise SystemExit("a WebSocket ended")
            missing[number] -= got
            if missing[number] == 0:
                now = time.perf_counter()
                times.append(now - sent[number])
                missing[number] = wanted
                sent[number] = now
                each.setblocking(True)
                each.sendall(message)
            elif missing[number] < 0:
                raise SystemExit("more came back than was sent")
    took = time.perf_counter() - begun
    return {"count": len(times), "rate": len(times) / took, "failed": 0, **percentiles(times)}


def events(port: int, path: str, connections: int, size: int, seconds: float) -> dict[str, float]:
    """Server-sent events to many clients; `size` is that of one event with its chunk around it."""
    poll = select.epoll()
    open_ = {}
    for _ in range(connections):
        each = connected(port)
        each.sendall(head("GET", path, "Accept: text/event-stream"))
        open_[each.fileno()] = each
    for each in open_.values():
        answer_head(each, b"200")
        each.setblocking(False)
        poll.register(each, select.EPOLLIN)
    count, failed = 0, 0
    begun = time.perf_counter()
    end = begun + seconds
    last = dict.fromkeys(open_, begun)
    gaps: list[float] = []
    while (now := time.perf_counter()) < end:
        for number, _ in poll.poll(end - now):
            got = open_[number].recv(65536)
            now = time.perf_counter()
            if not got:
                failed += 1
                poll.unregister(number)
                continue
            count += got.count(b"data: ")
            gaps.append(now - last[number])
            last[number] = now
    took = time.perf_counter() - begun
    return {"count": count, "rate": count / took, "failed": failed, **percentiles(gaps)}


def download(port: int, path: str, connections: int, size: int, seconds: float) -> dict[str, float]:
    """Whole bodies of `size` bytes, at least one each; a count is a mebibyte."""
    open_ = [connected(port) for _ in range(connections)]
    count = 0
    begun = time.perf_counter()
    while count == 0 or time.perf_counter() - begun < seconds:
        for each in open_:
            each.sendall(head("GET", path))
        left = {each.fileno(): size - len(answer_head(each, b"200")) for each in open_}
        poll = select.epoll()
        by_number = {each.fileno(): each for each in open_}
        for number in left:
            poll.register(number, select.EPOLLIN)
        while left:
            for number, _ in poll.poll(OPEN_S):
                got = by_number[number].recv_into(BUFFER)
                left[number] -= got
                if left[number] == 0:
                    poll.unregister(number)
                    del left[number]
                elif not got or left[number] < 0:
                    raise SystemExit("a body of another length")
        poll.close()
        count += connections * (size >> 20)
    took = time.perf_counter() - begun
    return {"count": count, "rate": count / took, "failed": 0}


def upload(port: int, path: str, connections: int, size: int, seconds: float) -> dict[str, float]:
    """Whole bodies of `size` bytes, chunked, over one connection after the other; a count is a mebibyte."""
    chunk = f"{len(PIECE):x}\r\n".encode() + PIECE + b"\r\n"
    count = 0
    opened = connected(port)
    begun = time.perf_counter()
    while count == 0 or time.perf_counter() - begun < seconds:
        opened.sendall(head("POST", path, "Transfer-Encoding: chunked"))
        for _ in range(size // len(PIECE)):
            opened.sendall(chunk)
        opened.sendall(b"0\r\n\r\n")
        body = answer_head(opened, b"200")
        while len(body) < len(str(size)):
            body += opened.recv(100)
        if body != str(size).encode():
            raise SystemExit(f"the app counted {body!r} bytes")
        count += size >> 20
    took = time.perf_counter() - begun
    return {"count": count, "rate": count / took, "failed": 0}


KINDS: dict[str, Callable[[int, str, int, int, float], dict[str, float]]] = {
    "echo": echo,
    "events": events,
    "download": download,
    "upload": upload,
}


def main() -> None:
    kind, port, path, connections, size, seconds = sys.argv[1:]
    print("RESULT " + json.dumps(KINDS[kind](int(port), path, int(connections), int(size), float(seconds))))


if __name__ == "__main__":
    main()
