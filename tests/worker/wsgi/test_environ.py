"""environ, from request heads as Caddy and others send them."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.worker import settings

from caddysnake.http1.forwarded import split_address
from caddysnake.http1.limits import Limits
from caddysnake.http1.request import HEADS_MAX, Heads, RequestHead, RequestParser
from caddysnake.worker.asgi.scope import Peer, Scopes
from caddysnake.worker.wsgi.call.file_wrapper import FileWrapper
from caddysnake.worker.wsgi.environ import Environ, Origin, of_request

CADDY = "Via: 1.1 Caddy", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Host: ex.com:9500", "X-Forwarded-Proto: https"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def base(pair: tuple[socket.socket, socket.socket]) -> dict[str, Any]:
    wanted = settings("a:app", "wsgi", "/", threads=1, workers=2)
    environ, origin = Environ(wanted, FileWrapper, io.StringIO()).of_connection(pair[0], trusted=True)
    assert origin is Origin.FORWARDED
    return environ


def head(target: str = "/", *headers: str, host: str = "ex.com:9500", method: str = "GET") -> RequestHead:
    parser = RequestParser(Limits())
    lines = "".join(f"{header}\r\n" for header in (f"Host: {host}", *headers))
    parser.feed(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
    assert parser.head is not None
    return parser.head


def test_the_path_is_decoded_and_latin_1(base: dict[str, Any]) -> None:
    environ = of_request(base, head("/a%2Fb%20c/%C3%A9/../x%3Fy//z?%20=%C3&b"), Origin.FORWARDED)
    assert environ["PATH_INFO"] == "/a/b c/Ã©/../x?y//z"
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/a/b c/é/../x?y//z"
    assert environ["QUERY_STRING"] == "%20=%C3&b"
    assert environ["REQUEST_URI"] == "/a%2Fb%20c/%C3%A9/../x%3Fy//z?%20=%C3&b"
    assert environ["SCRIPT_NAME"] == ""


def test_what_caddy_always_takes_off_the_path_is_the_script_name(pair: tuple[socket.socket, socket.socket]) -> None:
    wanted = settings("a:app", "wsgi", "/", root_path="/café")
    base, origin = Environ(wanted, FileWrapper, io.StringIO()).of_connection(pair[0], trusted=True)
    for _ in range(2):
        environ = of_request(base, head("/x%20y?q"), origin)
        assert environ["SCRIPT_NAME"].encode("latin-1").decode() == "/café"
        assert (environ["PATH_INFO"], environ["REQUEST_URI"]) == ("/x y", "/caf%C3%A9/x%20y?q")


def test_the_asterisk_is_no_path(base: dict[str, Any]) -> None:
    environ = of_request(base, head("*", method="OPTIONS"), Origin.FORWARDED)
    assert (environ["PATH_INFO"], environ["REQUEST_URI"]) == ("", "*")


def test_an_absolute_target_gives_path_and_host(base: dict[str, Any]) -> None:
    environ = of_request(base, head("http://other.example/p?q", host="ex.com"), Origin.HOST)
    assert environ["PATH_INFO"] == "/p"
    assert environ["HTTP_HOST"] == environ["SERVER_NAME"] == "other.example"


def test_what_caddy_says_of_the_client_is_believed(base: dict[str, Any]) -> None:
    environ = of_request(base, head("/", *CADDY), Origin.FORWARDED)
    assert environ["REMOTE_ADDR"] == "192.0.2.7"
    assert environ["wsgi.url_scheme"] == "https"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("ex.com", "9500")
    assert environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.7"


def test_without_trust_it_is_not(base: dict[str, Any]) -> None:
    environ = of_request(base, head("/", *CADDY, host="real.example"), Origin.HOST)
    assert environ["REMOTE_ADDR"] == ""
    assert environ["wsgi.url_scheme"] == "http"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("real.example", "80")


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["1.1.1.1"], "1.1.1.1"),
        (["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        (["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
        (["2001:db8::1"], "2001:db8::1"),
        ([""], ""),
        (["1.1.1.1, "], ""),
    ],
)
def test_of_the_forwarded_addresses_caddys_own_peer_counts(
    base: dict[str, Any], forwarded: list[str], client: str
) -> None:
    environ = of_request(base, head("/", *(f"X-Forwarded-For: {value}" for value in forwarded)), Origin.FORWARDED)
    assert environ["REMOTE_ADDR"] == client


@pytest.mark.parametrize("proto", ["ftp", "", "javascript", "https, gopher"])
def test_a_scheme_that_is_none_stays_http(base: dict[str, Any], proto: str) -> None:
    assert of_request(base, head("/", f"X-Forwarded-Proto: {proto}"), Origin.FORWARDED)["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize(
    ("host", "scheme", "name", "port"),
    [
        ("a.example", "http", "a.example", "80"),
        ("a.example", "https", "a.example", "443"),
        ("a.example:8000", "https", "a.example", "8000"),
        ("a.example:", "http", "a.example", "80"),
        ("a.example:http", "http", "a.example:http", "80"),
        ("[::1]:8000", "http", "[::1]", "8000"),
        ("[::1]", "http", "[::1]", "80"),
        ("::1", "http", "::1", "80"),
        ("", "https", "localhost", "80"),
    ],
)
def test_the_servers_name_and_port_are_those_the_browser_used(
    base: dict[str, Any], host: str, scheme: str, name: str, port: str
) -> None:
    headers = [f"X-Forwarded-Proto: {scheme}"] + ([f"X-Forwarded-Host: {host}"] if host else [])
    environ = of_request(base, head("/", *headers, host=""), Origin.FORWARDED)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)


def test_on_tcp_the_kernel_names_both_ends() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        builder = Environ(settings("a:app", "wsgi", "/"), FileWrapper)
        base, origin = builder.of_connection(server, trusted=False)
        environ = of_request(base, head("/", *CADDY), origin)
        assert (environ["SERVER_NAME"], int(environ["SERVER_PORT"])) == listener.getsockname()
        assert (environ["REMOTE_ADDR"], int(environ["REMOTE_PORT"])) == client.getsockname()
        base, origin = builder.of_connection(server, trusted=True)
        environ = of_request(base, head("/", *CADDY), origin)
        assert environ["REMOTE_ADDR"] == "192.0.2.7"
        assert "REMOTE_PORT" not in environ


def test_repeated_headers_are_one_list(base: dict[str, Any]) -> None:
    repeated = ["X-A: 1", "X-A: ", "X-A: 1", "Cookie: a=1", "Cookie: b=2", "Content-Type: a/b", "Content-Type: c/d"]
    environ = of_request(base, head("/", *repeated), Origin.FORWARDED)
    assert environ["HTTP_X_A"] == "1, , 1"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["CONTENT_TYPE"] == "a/b"


def test_a_name_with_an_underscore_cannot_pose_as_another(base: dict[str, Any]) -> None:
    environ = of_request(base, head("/", "X_Forwarded_For: 6.6.6.6", "X-Forwarded-For: 1.1.1.1"), Origin.FORWARDED)
    assert environ["HTTP_X_FORWARDED_FOR"] == environ["REMOTE_ADDR"] == "1.1.1.1"
    assert "HTTP_CONTENT_LENGTH" not in of_request(base, head("/", "Content_Length: 5"), Origin.FORWARDED)


def test_no_header_becomes_a_proxy_setting(base: dict[str, Any]) -> None:
    assert "HTTP_PROXY" not in of_request(base, head("/", "Proxy: http://evil.example"), Origin.FORWARDED)


def test_values_are_bytes_in_latin_1(base: dict[str, Any]) -> None:
    environ = of_request(base, head("/", "X-Name: Ã©"), Origin.FORWARDED)
    assert environ["HTTP_X_NAME"].encode("latin-1").decode() == "é"


def test_content_keys_have_no_prefix(base: dict[str, Any]) -> None:
    environ = of_request(
        base, head("/", "Content-Type: text/plain", "Content-Length: 3", method="POST"), Origin.FORWARDED
    )
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/plain", "3")
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & set(environ)


def test_only_content_without_a_length_is_said_to_end_by_itself(base: dict[str, Any]) -> None:
    """Werkzeug would read all else without a size too, which wsgiref.validate refuses."""
    for field, is_said in (("Transfer-Encoding: chunked", True), ("Content-Length: 3", False), ("X: y", False)):
        environ = of_request(base, head("/", field, method="POST"), Origin.FORWARDED)
        assert environ.get("wsgi.input_terminated", False) is is_said


def test_what_has_been_decoded_is_not_announced(base: dict[str, Any]) -> None:
    environ = of_request(base, head("/", "Transfer-Encoding: chunked", method="POST"), Origin.FORWARDED)
    assert "HTTP_TRANSFER_ENCODING" not in environ
    assert "" not in environ


def test_one_request_does_not_touch_the_next(base: dict[str, Any]) -> None:
    before = dict(base)
    of_request(base, head("/", *CADDY, "X-A: 1"), Origin.FORWARDED)["HTTP_X_B"] = "app's own"
    assert base == before
    assert not {"HTTP_X_A", "HTTP_X_B"} & set(of_request(base, head("/"), Origin.FORWARDED))


def test_the_server_says_how_it_runs_apps(base: dict[str, Any]) -> None:
    assert base["wsgi.multithread"] is False
    assert base["wsgi.multiprocess"] is True


def test_workers_that_are_threads_of_one_process_are_no_processes(pair: tuple[socket.socket, socket.socket]) -> None:
    wanted = settings("a:app", "wsgi", "/", threads=1, workers=2, shares_process=True)
    environ, _ = Environ(wanted, FileWrapper, io.StringIO()).of_connection(pair[0], trusted=True)
    assert (environ["wsgi.multithread"], environ["wsgi.multiprocess"]) == (True, False)


@pytest.mark.parametrize("is_remembered", [False, True])
def test_what_a_route_took_off_the_path_is_told_by_a_relay_only(
    pair: tuple[socket.socket, socket.socket], is_remembered: bool
) -> None:
    builder = Environ(settings("a:app", "wsgi", "/"), FileWrapper)
    heads = Heads(HEADS_MAX) if is_remembered else None
    told = "Caddysnake-Prefix: /caf%C3%A9", "Caddysnake-More: 1"
    for _ in range(3):
        for link in (True, False):
            parser = RequestParser(Limits(), heads)
            lines = "".join(f"{header}\r\n" for header in ("Host: a.example", *CADDY, *told))
            parser.feed(f"GET /x%20y?q HTTP/1.1\r\n{lines}\r\n".encode())
            assert parser.head is not None
            base, origin = builder.of_connection(pair[0], trusted=True, link=link)
            environ = of_request(base, parser.head, origin)
            assert environ["PATH_INFO"] == "/x y"
            assert environ["REMOTE_ADDR"] == "192.0.2.7"
            assert environ["SCRIPT_NAME"] == ("/cafÃ©" if link else "")
            assert environ["REQUEST_URI"] == ("/caf%C3%A9/x%20y?q" if link else "/x%20y?q")
            assert not [name for name in environ if "caddysnake" in name.lower()]


def test_what_a_stranger_says_of_its_client_is_replaced() -> None:
    forged = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Port: 1", "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6")
    forged += ("X-Request-Start: t=1",)
    raw = "\r\n".join(["GET / HTTP/1.1", "Host: ex.com", "X-Forwarded-Proto: https", *forged, "", ""]).encode()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            for trusted in (False, True):
                parser = RequestParser(Limits())
                parser.feed(raw)
                assert parser.head is not None
                common, origin = Environ(settings("a:app", "wsgi", "/"), FileWrapper).of_connection(accepted, trusted)
                environ = of_request(common, parser.head, origin)
                scope = Scopes().http(parser.head, Peer(accepted, trusted))
                shown = {
                    "HTTP_" + name.decode().upper().replace("-", "_"): value.decode()
                    for name, value in scope["headers"]
                }
                assert shown == {key: environ[key] for key in environ if key.startswith("HTTP_")}
                if not trusted:
                    assert shown == {
                        "HTTP_HOST": "ex.com",
                        "HTTP_X_FORWARDED_FOR": client.getsockname()[0],
                        "HTTP_X_FORWARDED_HOST": "ex.com",
                        "HTTP_X_FORWARDED_PROTO": "http",
                    }
                    assert environ["wsgi.url_scheme"] == scope["scheme"] == "http"


@pytest.mark.parametrize(
    ("written", "address", "port"),
    [
        ("192.0.2.1:4711", "192.0.2.1", 4711),
        ("[2001:db8::1]:4711", "2001:db8::1", 4711),
        ("[2001:db8::1]", "2001:db8::1", 0),
        ("2001:db8::1", "2001:db8::1", 0),
        ("192.0.2.1", "192.0.2.1", 0),
        ("unknown", "unknown", 0),
        ("", "", 0),
    ],
)
def test_a_forwarded_address_may_have_a_port(written: str, address: str, port: int) -> None:
    assert split_address(written) == (address, port)
