"""ASGI scopes, from request heads as Caddy, relays and others send them."""

from __future__ import annotations

import socket

import pytest

from caddysnake.http1.limits import Limits
from caddysnake.http1.request import HEADS_MAX, Heads, RequestHead, RequestParser
from caddysnake.http1.speedups import FORWARDED
from caddysnake.worker.asgi.scope import Peer, Scopes

PREFIXED = (
    b"GET /x%20y?q HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 192.0.2.7\r\n"
    b"caddysnake-prefix: /caf%C3%A9\r\ncaddysnake-more: 1\r\n\r\n"
)


def head(raw: bytes, heads: Heads | None = None) -> RequestHead:
    parser = RequestParser(Limits(), heads)
    parser.feed(raw)
    assert parser.head is not None
    return parser.head


@pytest.mark.parametrize("is_remembered", [False, True])
def test_what_a_route_took_off_the_path_is_told_by_a_relay_only(is_remembered: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        scopes = Scopes()
        heads = Heads(HEADS_MAX) if is_remembered else None
        caddy, relay, stranger = Peer(ours, True), Peer(ours, True, True), Peer(ours, False)
        for peer in (relay, caddy, stranger) * 3:
            scope = scopes.http(head(PREFIXED, heads), peer)
            if peer is stranger:
                assert scope["headers"][1:] == [(b"x-forwarded-proto", b"http"), (b"x-forwarded-host", b"a.example")]
            else:
                assert [name for name, _ in scope["headers"]] == [b"host", b"x-forwarded-for"]
            assert scope["client"] == (None if peer is stranger else ("192.0.2.7", 0))
            if peer is relay:
                assert scope["root_path"] == "/café"
                assert scope["path"] == "/café/x y"
                assert scope["raw_path"] == b"/caf%C3%A9/x%20y"
            else:
                assert scope["root_path"] == ""
                assert scope["path"] == "/x y"


@pytest.mark.parametrize("has_reader", [False, True])
@pytest.mark.parametrize(
    ("proto", "scheme"),
    [(b"https", "https"), (b"HTTPS", "https"), (b"http, https", "https"), (b"https, http", "http"), (b"", "http")],
)
def test_the_scheme_is_what_the_nearest_proxy_says(proto: bytes, scheme: str, has_reader: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        scopes, peer = Scopes(), Peer(ours, True)
        parser = RequestParser(Limits(), None, scopes.reader(Limits()) if has_reader else None)
        parser.start = peer.address, FORWARDED
        parser.feed(b"GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-Proto: %s\r\n\r\n" % proto)
        assert parser.head is not None
        assert scopes.http(parser.head, peer)["scheme"] == scheme


def test_a_websocket_has_it_too() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        scope = Scopes().websocket(head(PREFIXED), Peer(ours, True, True), ["chat"])
    assert (scope["type"], scope["root_path"], scope["path"]) == ("websocket", "/café", "/café/x y")


@pytest.mark.parametrize("is_remembered", [False, True])
def test_what_is_always_taken_off_is_in_the_settings(is_remembered: bool) -> None:
    plain = b"GET /x%20y?q HTTP/1.1\r\nhost: a.example\r\n\r\n"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        scopes, heads = Scopes("/café"), (Heads(HEADS_MAX) if is_remembered else None)
        for raw, more in ((plain, ""), (plain, ""), (PREFIXED, "/café"), (plain, "")):
            scope = scopes.http(head(raw, heads), Peer(ours, True, is_link=True))
            assert scope["root_path"] == f"/café{more}"
            assert scope["path"] == f"/café{more}/x y"
            assert scope["raw_path"] == b"/caf%C3%A9" + (b"/caf%C3%A9" if more else b"") + b"/x%20y"


def test_nothing_that_an_app_changes_is_seen_by_the_next_request() -> None:
    raw = b"GET /x HTTP/1.1\r\nhost: a.example\r\n\r\n"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        scopes, peer = Scopes(), Peer(ours, True)
        scopes.state = {"top": 1}
        heads = Heads(HEADS_MAX)
        for _ in range(5):
            parser = RequestParser(Limits(), heads)
            parser.feed(raw)
            assert parser.head is not None
            scope = scopes.http(parser.head, peer)
            assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
            assert set(scope["extensions"]) >= {"http.response.early_hint", "http.response.trailers"}
            assert scope["headers"] == [(b"host", b"a.example")]
            assert scope["state"] == {"top": 1}
            for name in ("asgi", "extensions", "headers", "state"):
                scope[name].clear()


def test_strangers_who_send_the_same_head_are_told_apart() -> None:
    raw = b"GET /x HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 198.51.100.9\r\n\r\n"
    scopes, heads = Scopes(), Heads(HEADS_MAX)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(3):
            for address in ("127.0.0.1", "127.0.0.2"):
                with socket.create_connection(server.getsockname(), source_address=(address, 0)) as client:
                    accepted, _ = server.accept()
                    with accepted:
                        scope = scopes.http(head(raw, heads), Peer(accepted, False))
                    assert scope["client"] == client.getsockname()
                    assert (b"x-forwarded-for", address.encode()) in scope["headers"]
                    assert (b"x-forwarded-for", b"198.51.100.9") not in scope["headers"]
