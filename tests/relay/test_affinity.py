"""Which worker a client goes to: marks, balance, what is remembered, and for how long."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from caddysnake.http1.limits import Limits
from caddysnake.http1.request import RequestHead, RequestParser
from caddysnake.relay import affinity
from caddysnake.relay.affinity import ANY, LOST_FIELD, Affinity, Block

APP = (3, "")
KEY = b"k" * 32


def head(*fields: str) -> RequestHead:
    parser = RequestParser(Limits())
    parser.feed(("GET / HTTP/1.1\r\nHost: x\r\n" + "".join(f"{field}\r\n" for field in fields) + "\r\n").encode())
    assert parser.head is not None
    return parser.head


def new(kind: str = "cookie", name: str = "who", identity: str = "app", key: bytes = KEY, epoch: int = 7) -> Affinity:
    numbers = itertools.count(1)
    made = Affinity({3: Block(kind, name, identity)}, key, epoch, lambda size: next(numbers).to_bytes(size, "big"))
    made.told(APP, [11, 12, 13, 14])
    return made


def visit(of: Affinity, *fields: str, now: float = 0.0, gone: int = 0) -> tuple[int, bytes, str]:
    """One request: the worker, what the app is told, and the cookie that comes back. ``gone`` is never granted."""
    asked = head(*fields)
    wish = of.wish(APP, asked, now)
    assert wish is not None
    worker = wish.worker if wish.worker not in (ANY, gone) else 14
    told, line = of.granted(wish, worker, asked, True, now)
    return worker, told, line.partition(b": ")[2].partition(b";")[0].decode()


def test_a_thousand_clients_are_spread_evenly_and_stay() -> None:
    of = new()
    cookies = [visit(of) for _ in range(1000)]
    assert Counter(worker for worker, _, _ in cookies) == {11: 250, 12: 250, 13: 250, 14: 250}
    for worker, _, cookie in cookies:
        assert visit(of, f"Cookie: a=b; {cookie}") == (worker, b"", "")


def test_clients_of_a_worker_that_is_gone_are_told_once_and_spread_among_the_others() -> None:
    of = new()
    cookies = {visit(of)[2] for _ in range(400)}
    of.left(11)
    moved = [visit(of, f"Cookie: {cookie}", gone=11) for cookie in cookies]
    lost = [each for each in moved if each[1]]
    assert len(lost) == 100
    assert {told for _, told, _ in lost} == {LOST_FIELD}
    assert all(visit(of, f"Cookie: {cookie}") == (worker, b"", "") for worker, _, cookie in lost)
    assert 11 not in {visit(of)[0] for _ in range(30)}


@pytest.mark.parametrize(
    "other",
    [
        new(key=b"other" * 8),
        new(identity="another app"),
        new(name="other"),
    ],
)
def test_a_mark_of_somebody_else_is_none(other: Affinity) -> None:
    _, told, cookie = visit(new(), f"Cookie: {visit(other)[2]}")
    assert told == b""
    assert cookie.startswith("who=")


def test_a_mark_of_another_life_of_the_daemon_is_lost() -> None:
    worker, told, cookie = visit(new(), f"Cookie: {visit(new(epoch=6))[2]}")
    assert worker in (11, 12, 13, 14)
    assert told == LOST_FIELD
    assert cookie


@pytest.mark.parametrize("value", ["", ".", "...", "7.b.x.y", "x" * 300, "7.b.\xff.z", "7.zz.c.s"])
def test_what_is_no_mark_harms_nobody(value: str) -> None:
    parser = RequestParser(Limits())
    parser.feed(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: who=" + value.encode("latin-1") + b"\r\n\r\n")
    assert parser.head is not None
    wish = new().wish(APP, parser.head, 0.0)
    assert wish is not None
    assert not wish.had


def test_a_field_is_remembered_while_it_is_used() -> None:
    of = new("header", "X-User")
    homes = {name: visit(of, f"X-User: {name}")[0] for name in "abcdefgh"}
    assert set(Counter(homes.values()).values()) == {2}
    assert {name: visit(of, f"x-user: {name}", now=500.0)[0] for name in homes} == homes
    of.sweep(now=500.0 + affinity.CLIENT_S)
    assert not of.wish(APP, head("X-User: a"), 1200.0).had  # type: ignore[union-attr]
    assert visit(of) == (visit(of)[0] - 1, b"", ""), "without the field, in turn, and unmarked"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "CLIENTS_MAX", 10)
    of = new("header", "X-User")
    for number in range(30):
        visit(of, f"X-User: {number}")
    assert [of.wish(APP, head(f"X-User: {number}"), 0.0).had for number in (29, 0)] == [True, False]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("said", "is_trusted", "is_secure"),
    [("http, https", True, True), ("https", False, False), ("https, http", True, False)],
)
def test_https_makes_the_cookie_secure_where_caddy_says_so(said: str, is_trusted: bool, is_secure: bool) -> None:
    of, asked = new(), head(f"X-Forwarded-Proto: {said}")
    wish = of.wish(APP, asked, 0.0)
    assert wish is not None
    _, line = of.granted(wish, 11, asked, is_trusted, 0.0)
    assert line.endswith(b"; Path=/; HttpOnly; SameSite=Lax; Secure") == is_secure
