"""A client that says exactly what a test wrote, and reads responses strictly: framing errors are test failures."""

from __future__ import annotations

import socket
from typing import NamedTuple


class Answer(NamedTuple):
    status: int
    reason: str
    headers: list[tuple[str, str]]
    """Names in lower case, in order."""
    body: bytes
    whole: bool
    """False when the connection ended before the message did."""

    def header(self, name: str) -> str | None:
        """The one field of that name, None when there is none."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} repeated: {found}"
        return found[0] if found else None


class RawClient:
    """Over a connected socket, which it owns. Reads what is needed, keeps what follows."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, data: bytes) -> Answer:
        """Send a request and read its response."""
        self.send(data)
        return self.answer(head_only=data.startswith(b"HEAD "))

    def get(self, path: str, *headers: str) -> Answer:
        lines = "".join(f"{header}\r\n" for header in headers)
        return self.ask(f"GET {path} HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n".encode("latin-1"))

    def post(self, path: str, content: bytes, *headers: str) -> Answer:
        lines = "".join(f"{header}\r\n" for header in headers)
        head = f"POST {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {len(content)}\r\n{lines}\r\n"
        return self.ask(head.encode("latin-1") + content)

    def answer(self, head_only: bool = False) -> Answer:
        """The next response, informational ones included."""
        status, reason, headers = self.head()
        lengths = {value for key, value in headers if key == "content-length"}
        assert len(lengths) <= 1, headers
        chunked = ("transfer-encoding", "chunked") in headers
        assert not (lengths and chunked), headers
        if head_only or status in (204, 304) or status < 200:
            return Answer(status, reason, headers, b"", True)
        if chunked:
            body, whole = self._chunks()
        elif lengths:
            length = int(lengths.pop())
            body = self._take(length)
            whole = len(body) == length
        else:
            body, whole = self.rest(), True
        return Answer(status, reason, headers, body, whole)

    def head(self) -> tuple[int, str, list[tuple[str, str]]]:
        """Status, reason and headers of the next response; its content is left to be read."""
        while b"\r\n\r\n" not in self._buffer:
            assert self._more(), f"the connection ended in a response head: {self._buffer!r}"
        raw, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        line, *fields = raw.decode("latin-1").split("\r\n")
        version, status, reason = (line + " ").split(" ", 2)
        assert version == "HTTP/1.1", line
        headers = []
        for field in fields:
            name, colon, value = field.partition(": ")
            assert colon, field
            headers.append((name.lower(), value))
        return int(status), reason.strip(), headers

    def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes of what follows."""
        data = self._take(count)
        assert len(data) == count, data
        return data

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        while self._more():
            pass
        data, self._buffer = self._buffer, b""
        return data

    def is_ended(self) -> bool:
        """The peer ends the connection here (waits for it)."""
        return not self._buffer and not self._more()

    def is_quiet(self, seconds: float = 0.05) -> bool:
        """Nothing comes, not even the end, for a moment."""
        before = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            return not self._buffer and self._more() is None
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(before)

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while True:
            line = self._line()
            if line is None:
                return body, False
            size = int(line, 16)
            if size == 0:
                while (line := self._line()) is not None:
                    if not line:
                        return body, True
                return body, False
            piece = self._take(size)
            body += piece
            if len(piece) < size or self._take(2) != b"\r\n":
                return body, False

    def _line(self) -> bytes | None:
        while b"\r\n" not in self._buffer:
            if not self._more():
                return None
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count and self._more():
            pass
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _more(self) -> bool:
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        self._buffer += data
        return bool(data)
