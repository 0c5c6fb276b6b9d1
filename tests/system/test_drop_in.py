"""A directory that was made for the Go plugin, run with ``caddysnake run --caddy`` in the place of its Caddy."""

from __future__ import annotations

import http.client
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import PATIENCE_S, Process, free_port

pytestmark = pytest.mark.system

# As Werkzeug reads a request: without a size only where the server says that the content ends by itself.
ITEMS = """
import os, wsgiref.validate

@wsgiref.validate.validator
def app(environ, start_response):
    content = environ["wsgi.input"]
    if "wsgi.input_terminated" in environ:
        body = content.read()
    else:
        body = content.read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"%s %d %s" % (environ["PATH_INFO"].encode(), len(body), os.getcwd().encode())
"""
COUNT = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            break
        size, more = size + len(event["body"]), event["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})
"""
WHERE = """
async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{scope['root_path']} {scope['path']}".encode()})

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [f"{environ['SCRIPT_NAME']} {environ['PATH_INFO']} {environ['REQUEST_URI']}".encode("latin-1")]
"""
TENANT = """
import os

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": " ".join((__name__, os.environ["INLINE"], os.environ["FROM_FILE"],
                                                                os.environ["OVERRIDE"])).encode()})
"""
CADDYFILE = """{{
	http_port {port}
	https_port {other}
	admin off
	log {{
		level info
	}}
}}
localhost:{port} {{
	route /item/* {{
		python {{
			module_wsgi "items:app"
			workers 2
			venv "./venv"
		}}
	}}

	python /count/* {{
		module_asgi "count:app"
		workers 1
		venv "./venv"
		request_body {{
			max_size 1KiB
		}}
	}}

	handle_path /mounted/* {{
		handle_path /there/* {{
			python {{
				module_asgi "where:asgi"
				workers 1
			}}
		}}
		python {{
			module_wsgi "where:wsgi"
			workers 1
		}}
	}}

	route / {{
		respond 404
	}}
}}
*.127.0.0.1.nip.io:{port} {{
	route /* {{
		python {{
			module_asgi "{{http.request.host.labels.6}}:app"
			working_dir "{{http.request.host.labels.6}}/"
			workers 1
			venv "./venv"
			env_file ".env"
			env_var INLINE "{{http.request.host.labels.6}}_inline"
			env_var OVERRIDE inline
		}}
	}}
}}
"""


def ask(port: int, method: str, target: str, body: bytes | None = None, host: str = "localhost") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, target, body, {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path, Process]]:
    """Port, folder and daemon. The Caddyfile is elsewhere: paths in it are relative to where the daemon was started."""
    folder, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("file")
    (folder / "items.py").write_text(ITEMS)
    (folder / "count.py").write_text(COUNT)
    (folder / "where.py").write_text(WHERE)
    (folder / "venv").symlink_to(sys.prefix)
    for name in ("app1", "app2"):
        (folder / name).mkdir()
        (folder / name / f"{name}.py").write_text(TENANT)
        (folder / name / ".env").write_text(f"FROM_FILE={name}_file\nOVERRIDE=file\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "caddy").symlink_to(find_caddy("current"))
    port, other = free_port(), free_port()
    (elsewhere / "Caddyfile").write_text(CADDYFILE.format(port=port, other=other))
    command = [sys.executable, "-m", "caddysnake", "run", "--caddy", "--config", str(elsewhere / "Caddyfile")]
    with tempfile.TemporaryDirectory(prefix="caddysnake-test-") as runtime:
        environ = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "XDG_RUNTIME_DIR": runtime}
        process = Process(command, folder, "daemon", environ)
        try:
            process.wait_for_log(" ready in ")
            # What the scripts around the plugin wait for.
            process.wait_for_log("finished cleaning storage units")
            yield port, folder, process
        finally:
            process.close()


def test_a_validated_app_in_a_route_gets_its_content(site: tuple[int, Path, Process]) -> None:
    port, folder, _ = site
    assert ask(port, "GET", "/item/1") == (200, f"/item/1 0 {folder}")
    assert ask(port, "POST", "/item/2", b"x" * 100_000) == (200, f"/item/2 100000 {folder}")


def test_content_over_the_limit_of_a_block_is_refused_and_the_next_is_not(site: tuple[int, Path, Process]) -> None:
    port = site[0]
    answers = [ask(port, "POST", "/count/x", bytes(size)) for size in (512, 1024, 1025, 64)]
    assert [status for status, _ in answers] == [200, 200, 413, 200]
    assert [body for status, body in answers if status == 200] == ["512", "1024", "64"]


def test_an_app_knows_what_handle_path_has_taken_off(site: tuple[int, Path, Process]) -> None:
    """ASGI has it in the path as well (root_path), PEP 3333 has not (SCRIPT_NAME)."""
    port = site[0]
    assert ask(port, "GET", "/mounted/there/x%20y?q") == (200, "/mounted/there /mounted/there/x y")
    assert ask(port, "GET", "/mounted/x%20y?q") == (200, "/mounted /x y /mounted/x%20y?q")


def test_what_is_caddys_stays_caddys(site: tuple[int, Path, Process]) -> None:
    port = site[0]
    assert ask(port, "GET", "/")[0] == 404
    assert ask(port, "GET", "/other") == (200, "")


def test_tenants_are_told_apart_by_the_labels_of_their_hosts(site: tuple[int, Path, Process]) -> None:
    port = site[0]
    for name in ("app1", "app2", "app1"):
        said = f"{name} {name}_inline {name}_file inline"
        assert ask(port, "GET", "/hello", host=f"{name}.127.0.0.1.nip.io") == (200, said)
    assert ask(port, "GET", "/hello", host="nobody.127.0.0.1.nip.io")[0] == 404


def test_the_addresses_of_the_sites_are_told_as_a_browser_needs_them(site: tuple[int, Path, Process]) -> None:
    port, _, process = site
    assert " ready in " in process.log
    assert f" http://localhost:{port}/" in process.log
