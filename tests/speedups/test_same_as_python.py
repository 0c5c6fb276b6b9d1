"""What the extension accepts equals what the Python code makes of the same bytes, field by field; all else it leaves.

``CADDYSNAKE_HEADS=10000000`` asks for so many heads in the place of some ten thousand.
"""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from caddysnake.channel.settings import Settings
from caddysnake.cli.runtime import _copy_speedups
from caddysnake.http1.errors import ProtocolError
from caddysnake.http1.limits import Limits
from caddysnake.http1.request import RequestHead, RequestParser
from caddysnake.http1.speedups import FORWARDED, HOST_FIELD, NOBODY, new_reader
from caddysnake.libraries import abi_tag
from caddysnake.matchers.target import Target
from caddysnake.relay.to_worker import head_for
from caddysnake.worker.asgi.scope import Peer, Scopes
from caddysnake.worker.wsgi.environ import READ_FROM, Environ, of_request

speedups = pytest.importorskip("caddysnake_speedups", reason="not installed: pip install ./speedups")

HEADS = int(os.environ.get("CADDYSNAKE_HEADS", "12000"))
LIMITS = Limits(max_target_bytes=200, max_header_count=24)
CLIENT = ("127.0.0.1", 4)

METHODS = [*b"GET GET GET POST HEAD PUT DELETE PATCH OPTIONS get PROPFIND".split(), b"G T"]
TARGETS = [
    b"/",
    b"/",
    b"/a/b",
    b"/a%20b?x=%20y",
    b"/%",
    b"/%4",
    b"/%e4%f6",
    b"/%C3%A4",
    b"/%zz%41",
    b"/?",
    b"/??a",
    b"/a?b#c",
    b"/#",
    b"*",
    b"http://h/x",
    b"//x/y",
    b"/\xe4",
    b"/?\xe4",
    b"/" + b"a" * 198,
    b"/" + b"a" * 200,
    b"/a\tb",
    b"",
    b"a",
    b"/..%2f..",
    b"/%00",
    b"/;p=1",
    b"/%25%32%35",
]
VERSIONS = [b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 "]
NAMES = [
    b"Host",
    b"host",
    b"HOST",
    b"User-Agent",
    b"Accept",
    b"Cookie",
    b"cookie",
    b"X-Forwarded-For",
    b"X-Forwarded-Proto",
    b"X-Forwarded-Host",
    b"Content-Length",
    b"Content-Type",
    b"Connection",
    b"Transfer-Encoding",
    b"Expect",
    b"Upgrade",
    b"TE",
    b"Proxy",
    b"Forwarded",
    b"Caddysnake-Prefix",
    b"X_Y",
    b"X Y",
    b"",
    b"X-\xe4",
    b"X-Request-Id",
    b"a" * 48,
    b"A" * 49,
    b"!#$%&'*+-.^`|~",
    b"traceparent",
    b"X-Real-Ip",
    b"X-Request-Start",
]
VALUES = [
    b"",
    b"h",
    b"example.com",
    b"example.com:8080",
    b"h:",
    b"h:999999",
    b"[::1]:80",
    b"[::1",
    b"a b",
    b"a,b",
    b"10.0.0.1",
    b"1.2.3.4, 5.6.7.8",
    b"::1",
    b"2001:db8::7",
    b"1.2.3.4:99",
    b"[::1]:5",
    b"unknown",
    b"https",
    b"http",
    b"HTTPS",
    b"https, http",
    b"ftp",
    b"0",
    b"5",
    b"005",
    b"-1",
    b"+1",
    b"1 1",
    b"9" * 15,
    b"9" * 16,
    b"9" * 5000,
    b"close",
    b"keep-alive",
    b"Keep-Alive",
    b"keep-alive, close",
    b"chunked",
    b"100-continue",
    b"websocket",
    b"trailers",
    b"text/plain; charset=utf-8",
    b"\xe4\xf6",
    b"a\x00b",
    b"a\x7fb",
    b"a\tb",
    b"a\rb",
    b"a\nb",
    b"x" * 300,
    b",",
    b" ,a ",
]
SPACES = [b"", b" ", b" ", b" ", b"\t", b"  ", b" \t "]
ENDS = [b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n", b""]


def plain(chance: random.Random) -> bytes:
    """A head that is meant to be accepted."""
    names = chance.sample([*NAMES[3:9], b"Content-Type", b"X-Request-Id", b"traceparent"], chance.randrange(8))
    target = chance.choice([b"/", b"/a/b?c=d", b"/a%20b/%C3%A4?x=%20", b"/%e4/%"])
    lines = [b"%s %s HTTP/1.1" % (chance.choice(METHODS[:9]), target)]
    lines.append(b"Host: " + chance.choice([b"example.com", b"h:80", b"127.0.0.1:9000"]))
    if chance.random() < 0.3:
        lines.append(b"Connection: keep-alive")
    if chance.random() < 0.3:
        lines.append(b"Content-Length: %d" % chance.choice([0, 1, 77]))
    for name in names:
        values = [b"10.0.0.1", b"::1", b"https", b"a=b; c=d", b"*/*", b"example.com:81", b"\xe4"]
        lines.append(name + b":" + chance.choice(SPACES) + chance.choice(values) + chance.choice(SPACES))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def odd(chance: random.Random) -> bytes:
    """A head of parts that may each be wrong."""
    made = b" ".join((chance.choice(METHODS), chance.choice(TARGETS), chance.choice(VERSIONS))) + chance.choice(ENDS)
    for _ in range(chance.randrange(8)):
        made += chance.choice(NAMES) + chance.choice([b":"] * 20 + [b" :", b"", b"::"]) + chance.choice(SPACES)
        made += chance.choice(VALUES) + chance.choice(SPACES) + chance.choice(ENDS)
    return made + chance.choice([b"\r\n"] * 9 + [b"\n", b"", b" \r\n"])


def mutated(chance: random.Random) -> bytes:
    """One that was plain, with some bytes changed, gone, or twice."""
    made = bytearray(plain(chance))
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(made))
        kind = chance.randrange(3)
        if kind == 0:
            telling = b"\r\n\t :%,/?#\x00\x7f\x80\xff_Aa0"
            made[at] = chance.choice(telling) if chance.random() < 0.7 else chance.randrange(256)
        elif kind == 1:
            del made[at : at + chance.randrange(1, 20)]
        else:
            made[at:at] = made[at : at + chance.randrange(1, 40)]
        if not made:
            break
    return bytes(made)


def heads() -> Iterator[bytes]:
    chance = random.Random(20261130)
    for _ in range(HEADS // 3):
        yield plain(chance)
        yield odd(chance)
        yield mutated(chance)


def parsed(data: bytes) -> tuple[RequestHead, int, RequestParser] | None:
    """The head, and where it ends, as the Python code sees it; None where it refuses it, or waits for more."""
    parser = RequestParser(LIMITS)
    try:
        parser.feed(data)
    except ProtocolError:
        return None
    if parser.head is None:
        return None
    return parser.head, data.index(b"\r\n\r\n") + 4, parser


class Scoped:
    """The ASGI side."""

    def __init__(self, root: str, trusted: bool = True) -> None:
        self.scopes = Scopes(root)
        ours, theirs = socket.socketpair()
        self.peer = Peer(ours, trusted)
        ours.close()
        theirs.close()
        self.peer.address, self.peer.source = CLIENT, None if trusted else CLIENT[0]
        self.reader = self.scopes.reader(LIMITS)
        self.start: Any = (CLIENT, FORWARDED if trusted else HOST_FIELD)

    def made(self, head: RequestHead) -> dict[str, Any]:
        return self.scopes.http(head, self.peer)


class Environed:
    """The WSGI side."""

    def __init__(self, root: str, trusted: bool = True) -> None:
        settings = Settings("a", "wsgi", "m", "a", "/", {}, root_path=root)
        self.environ = Environ(settings, list)
        ours, theirs = socket.socketpair()
        base, self.origin = self.environ.of_connection(ours, trusted)
        self.start = base, READ_FROM[self.origin]
        ours.close()
        theirs.close()
        self.reader = self.environ.reader(LIMITS, keeps_fields=True)

    def made(self, head: RequestHead) -> dict[str, Any]:
        return of_request(self.start[0], head, self.origin)


class PassedOn:
    """The relay's side: what goes to a worker."""

    def __init__(self, root: str, trusted: bool = True) -> None:
        self.trusted = trusted
        self.reader = new_reader(False, (), ("", b""), (LIMITS.max_target_bytes, LIMITS.max_header_count))
        self.start: Any = (None, NOBODY)
        self.written = 0

    def sent(self, head: RequestHead, came: bytes) -> bytes:
        return head_for(head, Target(1, ""), "192.0.2.1", self.trusted, came)


def test_what_a_relay_passes_on_is_the_same() -> None:
    for one in (PassedOn("", True), PassedOn("", False)):
        assert one.reader is not None
        as_it_came = 0
        for data in heads():
            found = one.reader.read(data, *one.start)
            if found is None:
                continue
            line, fields, host, length, end, made = found
            expected = parsed(data)
            assert expected is not None, f"only the extension accepts {data!r}"
            head = RequestHead(line, fields or [], True)
            head.host, head.content_length, head.ready = host, length, made
            assert one.sent(head, data) == one.sent(expected[0], data), data
            assert (fields, end) == (expected[0].headers, expected[1]), data
            as_it_came += made is not None
        assert as_it_came > HEADS // 5


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "stranger"])
@pytest.mark.parametrize("root", ["", "/a b"])
@pytest.mark.parametrize("side", [Scoped, Environed])
def test_it_accepts_what_python_accepts_and_makes_the_same_of_it(
    side: type[Scoped | Environed], root: str, trusted: bool
) -> None:
    one = side(root, trusted)
    assert one.reader is not None
    accepted = 0
    for data in heads():
        found = one.reader.read(data, *one.start)
        if found is None:
            continue
        accepted += 1
        expected = parsed(data)
        assert expected is not None, f"only the extension accepts {data!r}"
        head, end, _ = expected
        line, headers, host, content_length, stop, made = found
        assert line == (head.method, head.target, head.path, head.query, head.version), data
        assert (headers, host, stop) == (head.headers, head.host, end), data
        assert content_length == head.content_length, data
        assert head.keep_alive, data
        assert head.upgrade is None, data
        assert not head.chunked, data
        assert not head.expect_continue, data
        assert made == one.made(head), data
    assert accepted > HEADS // 5, "most plain heads go the short way"


def test_nothing_of_one_result_is_another_s() -> None:
    one = Scoped("")
    assert one.reader is not None
    data = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    first, second = (one.reader.read(data, *one.start)[5] for _ in range(2))
    assert first == second
    for key in ("headers", "asgi", "extensions"):
        assert first[key] is not second[key]
    for name in first["extensions"]:
        assert first["extensions"][name] is not second["extensions"][name]


def test_names_that_strangers_invent_fill_no_memory() -> None:
    one = Scoped("")
    assert one.reader is not None
    for number in range(2000):
        one.reader.read(b"GET / HTTP/1.1\r\nHost: h\r\nX-%d: 1\r\n\r\n" % number, *one.start)
    assert one.reader.read(b"GET / HTTP/1.1\r\nHost: h\r\nX-7: 1\r\n\r\n", *one.start) is not None
    assert one.reader.read(b"GET / HTTP/1.1\r\nHost: h\r\nX-1999: 1\r\n\r\n", *one.start) is None, "Python reads it"


@pytest.mark.parametrize("arguments", [(), (b"", {}), (b"", None, 0), ("", {}, 0), (b"", {}, "")])
def test_wrong_arguments_are_refused(arguments: tuple[Any, ...]) -> None:
    reader = speedups.Reader(None, (), "", b"", 1, 1, True)
    with pytest.raises(TypeError):
        reader.read(*arguments)


def test_it_lets_go_of_all_that_it_makes() -> None:
    one = Scoped("/r"), Environed("/r")
    some = [data for data, _ in zip(heads(), range(600), strict=False)]

    def read_all() -> None:
        for side in one:
            assert side.reader is not None
            for data in some:
                side.reader.read(data, *side.start)

    read_all()  # the names are learned now
    before = sys.getallocatedblocks()
    for _ in range(20):
        read_all()
    assert sys.getallocatedblocks() - before < 100


def test_a_folder_for_another_python_gets_the_one_file_too(tmp_path: Path) -> None:
    machine = abi_tag().split("-", 2)[2]
    _copy_speedups(f"cpython-314t-{machine}", tmp_path)
    _copy_speedups("cpython-313-riscv64-linux-gnu", tmp_path)
    assert not list(tmp_path.iterdir()), "not for what cannot load it"
    _copy_speedups(f"cpython-313-{machine}", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [Path(speedups.__file__).name]
