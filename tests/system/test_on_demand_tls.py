"""A stock Caddy asks before it gets a certificate, and gets one only for a tenant that is there."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import PATIENCE_S, Process, daemon, free_port, get, workers
from support.town import block, settle, site

pytestmark = pytest.mark.system


class Https(http.client.HTTPSConnection):
    """HTTPS to loopback under another name. Raises ``ssl.SSLError`` when Caddy has no certificate for it."""

    def __init__(self, host: str, port: int) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the issuer is Caddy's own
        super().__init__(host, port, timeout=PATIENCE_S, context=context)
        self._tls = context

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def https(host: str, port: int) -> tuple[int, bytes]:
    connection = Https(host, port)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def one_file(folder: Path, port: int, ask: int) -> str:
    """Both Caddy's and ours."""
    return f"""{{
	admin off
	local_certs
	skip_install_trust
	auto_https disable_redirects
	http_port {free_port()}
	https_port {port}
	on_demand_ask 127.0.0.1:{ask}
}}

https:// {{
	tls {{
		on_demand
	}}
	{block(folder / "tenants")}
}}
"""


@pytest.mark.parametrize("kind", ["current", "debian"])
def test_one_file_for_both(tmp_path: Path, kind: str) -> None:
    binary = find_caddy(kind)
    settle(tmp_path / "tenants", "ann")
    port, ask = free_port(), free_port()
    environ = {"PATH": f"{os.path.dirname(binary)}:{os.environ['PATH']}", "XDG_DATA_HOME": str(tmp_path / "data")}
    with daemon(tmp_path, one_file(tmp_path, port, ask), "--caddy", environ=environ) as process:
        for stranger in ("eve.tenants.test", "tenants.test", "ann.tenants.test.evil.test", "127.0.0.1"):
            with pytest.raises(ssl.SSLError):
                https(stranger, port)
        assert not workers(process.pid), "asking starts nothing"
        status, content = https("ann.tenants.test", port)
        assert (status, content[:4]) == (200, b"ann "), process.log
        assert len(workers(process.pid)) == 1
        settle(tmp_path / "tenants", "bob")
        assert https("bob.tenants.test", port)[1][:4] == b"bob "


def test_a_caddy_with_a_file_of_its_own_and_an_address_that_a_reload_moves(tmp_path: Path) -> None:
    settle(tmp_path / "tenants", "ann")
    port, first, second = free_port(), free_port(), free_port()

    def ours(ask: str) -> str:
        return f"{{\n\t{ask}\n}}\n" + site(f"{tmp_path}/s.sock", block(tmp_path / "tenants"))

    theirs = tmp_path / "Caddyfile.stock"
    theirs.write_text(
        f"""{{
	admin off
	local_certs
	skip_install_trust
	auto_https disable_redirects
	http_port {free_port()}
	https_port {port}
	on_demand_tls {{
		ask http://127.0.0.1:{second}/check?x=1
	}}
}}
https:// {{
	tls {{
		on_demand
	}}
	reverse_proxy unix/{tmp_path}/s.sock
}}
"""
    )
    with daemon(tmp_path, ours(f"on_demand_ask 127.0.0.1:{first}")) as process:
        assert get("/?domain=ann.tenants.test", first) == (200, b"yes\n")
        assert get("/any/path?x=1&domain=eve.tenants.test", first) == (404, b"no\n")
        assert get("/", first)[0] == 400
        assert get("/?domain=ann.tenants.test&domain=eve.tenants.test", first)[0] == 400
        (tmp_path / "Caddyfile").write_text(ours(f"on_demand_ask 127.0.0.1:{second}"))
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log('"msg":"reloaded"')
        with pytest.raises(ConnectionRefusedError):
            get("/?domain=ann.tenants.test", first)
        binary = find_caddy("current")
        front = Process([binary, "run", "--config", str(theirs), "--adapter", "caddyfile"], tmp_path, "caddy")
        try:
            front.wait_for_log("serving initial configuration")
            assert https("ann.tenants.test", port)[1][:4] == b"ann "
            with pytest.raises(ssl.SSLError):
                https("eve.tenants.test", port)
        finally:
            front.close()
        (tmp_path / "Caddyfile").write_text(ours("relays 1"))
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log('"msg":"reloaded"', 2)
        with pytest.raises(ConnectionRefusedError):
            get("/?domain=ann.tenants.test", second)


def test_all_who_ask_at_once_are_answered_and_who_says_nothing_keeps_nobody_out(tmp_path: Path) -> None:
    settle(tmp_path / "tenants", "ada")
    ask = free_port()
    text = f"{{\n\ton_demand_ask 127.0.0.1:{ask}\n}}\n" + site("s.sock", block(tmp_path / "tenants"))
    with daemon(tmp_path, text) as process, contextlib.ExitStack() as held:
        process.wait_for_log("ready in")

        def connect() -> socket.socket:
            return held.enter_context(socket.create_connection(("127.0.0.1", ask), PATIENCE_S))

        for _ in range(300):
            connect()  # and say nothing
        asking = []
        for number in range(600):
            host = f"nobody{number}" if number % 2 else "ada"
            asking.append(connect())
            asking[-1].sendall(f"GET /?domain={host}.tenants.test HTTP/1.0\r\n\r\n".encode())
        answers = [client.makefile("rb").read().split(b" ")[1] for client in asking]
        assert answers == [b"200", b"404"] * 300


def test_an_address_that_is_taken_is_an_error_and_nothing_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settle(tmp_path / "tenants", "ann")
        text = f"{{\n\ton_demand_ask 127.0.0.1:{port}\n}}\n" + site(f"{tmp_path}/s.sock", block(tmp_path / "tenants"))
        complaint = f"on_demand_ask: cannot listen on tcp/127.0.0.1:{port}"
        with pytest.raises(AssertionError, match=complaint), daemon(tmp_path, text):
            pass


def test_the_example_with_previews_serves_each_branch_and_no_other_name(tmp_path: Path) -> None:
    here = tmp_path / "e"
    shutil.copytree(Path(__file__).resolve().parents[2] / "examples" / "previews", here)
    port = free_port()
    environ = {
        "EXAMPLE_PORT": str(port),
        "EXAMPLE_HTTP_PORT": str(free_port()),
        "EXAMPLE_ASK_PORT": str(free_port()),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    with daemon(here, (here / "Caddyfile").read_text(), "--caddy", environ=environ) as process:
        for branch in ("main", "login-form"):
            status, content = https(f"{branch}.preview.localhost", port)
            assert (status, json.loads(content)["branch"]) == (200, branch), process.log
        with pytest.raises(ssl.SSLError):
            https("nobody.preview.localhost", port)
        shutil.copytree(here / "branches" / "main", here / "branches" / "search")
        assert json.loads(https("search.preview.localhost", port)[1])["branch"] == "search"
