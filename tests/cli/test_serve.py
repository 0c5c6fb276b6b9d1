"""``serve``: what people type who come from elsewhere, and code that somebody is working on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.browser import browser, requires_chromium
from support.caddies import caddy as find_caddy
from support.daemon import PATIENCE_S, Process, as_text, eventually, free_port, get
from support.pythons import make_venv

from caddysnake.cli.named_app import UnservableValue, found_in, named, venv_of

WSGI = "def {}(environ, start_response):\n    start_response('200 OK', [])\n    return [{}]\n"
FACTORY = "def create_app(config=None):\n    " + WSGI.format("app", "b'made'").replace("\n", "\n    ") + "return app\n"
ASGI2 = """
class App:
    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        if self.scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"two"})
"""
SOLE = """
class Framework:
    def __call__(self, environ, start_response):
        start_response("200 OK", [])
        return [b"sole"]

site = Framework()
"""


@contextmanager
def serving(folder: Path, *words: str, waits: bool = True) -> Iterator[Process]:
    path = f"{Path(find_caddy('current')).parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "VIRTUAL_ENV": ""}
    process = Process([sys.executable, "-m", "caddysnake", "serve", *words], folder, "serve", environ)
    try:
        if waits:
            process.wait_for_log(" ready in ")
        yield process
    finally:
        process.close()


def caddysnake(folder: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "caddysnake", *words],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize(
    ("word", "source", "expected"),
    [
        ("main", WSGI.format("application", "b''"), ("main:application", "wsgi", None)),
        ("main", "app = 1\napplication = 2\n", ("main:app", None, None)),
        ("main", "if True:\n    from fastapi import FastAPI\n    app = FastAPI()\n", ("main:app", "asgi", None)),
        ("main", "from flask import Flask\n" + FACTORY, ("main:create_app()", "wsgi", None)),
        ("main", "def app(): ...\n", ("main:app()", None, None)),
        ("main.py", "async def app(scope, receive, send): ...\n", ("main:app", "asgi", None)),
        ("sub/main.py:site", "from django.core.wsgi import get_wsgi_application\n", ("main:site", "wsgi", "sub")),
        ("main:make()", "def make():\n    def inner(scope, receive, send): ...\n", ("main:make()", "asgi", None)),
        ("main", "app = (\n", ("main:app", None, None)),
        ("gone", "", ("gone:app", None, None)),
    ],
)
def test_an_app_is_found_by_what_its_file_defines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, source: str, expected: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sub" if "/" in word else tmp_path
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(source)
    found = named(word, None)
    assert (found.name, found.interface, found.working_dir) == expected


def test_a_file_in_a_package_is_imported_as_that_and_a_venv_above_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("src/shop/__init__.py", "src/shop/web/__init__.py", "src/shop/web/main.py", ".venv/pyvenv.cfg"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    for word, name in (("src/shop/web/main.py:app", "shop.web.main:app"), ("src/shop/__init__.py", "shop:app")):
        found = named(word, None)
        assert (found.name, found.working_dir) == (name, "src")
        venv = venv_of(found.working_dir, {})
        assert venv is not None
        assert venv.path == str(tmp_path / ".venv")
    assert venv_of(str(tmp_path.parent), {}) is None
    (tmp_path / ".env").write_text("GREETING=hi\n")
    (tmp_path / "src/shop/web/main.py").write_text("app = None\n")
    (tmp_path / ".venv/pyvenv.cfg").unlink()
    printed = caddysnake(tmp_path, "serve", "src/shop/web/main.py", "--asgi", "--env-file", ".env", "--print").stdout
    assert f'env_file "{tmp_path}/.env"' in printed


def test_without_a_word_the_usual_modules_are_looked_for_a_django_project_first(tmp_path: Path) -> None:
    with pytest.raises(UnservableValue, match="name the app"):
        found_in(str(tmp_path))
    files = {"wsgi.py": "wsgi", "main.py": "main", "site/asgi.py": "main", "site/wsgi.py": "main"}
    for file, expected in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
        assert found_in(str(tmp_path)) == expected
    (tmp_path / "manage.py").touch()
    assert found_in(str(tmp_path)) == "site.wsgi"


def test_words_that_name_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "main.py").touch()
    for word, working_dir in ((":app", None), ("a/b.py", "c"), ("main.app", None)):
        with pytest.raises(UnservableValue, match=r"write MODULE|name the module|write main:app"):
            named(word, working_dir)


@pytest.mark.system
@pytest.mark.parametrize(
    ("word", "source", "where", "body"),
    [
        pytest.param("main", FACTORY, ("--host", "localhost", "--port"), b"made", id="factory"),
        pytest.param("main:create_app", FACTORY, ("--factory", "--bind", "127.0.0.1"), b"made", id="named factory"),
        pytest.param("main.py", SOLE, ("--port",), b"sole", id="sole object"),
        pytest.param("main:App", ASGI2, ("-b", "127.0.0.1"), b"two", id="ASGI 2"),
    ],
)
def test_what_others_serve_is_served(
    tmp_path: Path, word: str, source: str, where: tuple[str, ...], body: bytes
) -> None:
    (tmp_path / "main.py").write_text(source)
    port = free_port()
    *options, last = where
    with serving(tmp_path, word, *options, *([last, str(port)] if last == "--port" else [f"{last}:{port}"])):
        assert get("/", port, Host="whatever.example") == (200, body)


@pytest.mark.system
def test_a_venv_beside_the_app_is_used_and_said_and_print_validates(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("from tenant_library import NAME\n" + WSGI.format("app", "NAME.encode()"))
    venv = make_venv(sys.executable, tmp_path / ".venv")
    port = free_port()
    with serving(tmp_path, "main", "--port", str(port)) as process:
        assert f"Note: the app runs in {venv}, which is beside the app" in process.log
        assert get("/", port) == (200, b"from the venv")
    printed = caddysnake(tmp_path, "serve", "main", "--autoreload", "--static-path", ".", "--workers", "3", "--print")
    assert f'venv "{venv}"' in printed.stdout
    assert "module_wsgi" in printed.stdout
    done = caddysnake(tmp_path, "validate", "--caddy", "--config", "-", stdin=printed.stdout)
    assert (done.returncode, done.stdout) == (0, "Valid configuration\n"), done.stderr


@pytest.mark.system
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing:app",), "Error: no module named nothing in "),
        (("main", "--workers", "many"), "Error: workers: 'many' is not a whole number"),
        (("main", "--env-file", "gone"), "Error: env_file "),
        (("main", "--port", "eighty"), "Error: --port eighty: write a number"),
    ],
)
def test_a_file_that_nobody_wrote_is_never_cited(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "main.py").write_text(WSGI.format("app", "b''"))
    done = caddysnake(tmp_path, "serve", *words)
    assert done.returncode == 1
    assert said in as_text(done.stderr)
    assert "(serve" not in done.stderr


@pytest.mark.system
@requires_chromium
def test_code_that_is_broken_waits_for_its_mending_and_the_page_that_says_so_reloads_itself(tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text("import os\napp = (\n")
    (tmp_path / ".env").write_text("GREETING=hello\n")
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with (
        serving(tmp_path, "main", "--reload", "--env-file", ".env", "--port", str(port), "--workers", "2"),
        browser() as page,
    ):
        page.appear(390, 844, dark=True)
        page.open(url)
        assert "SyntaxError" in page.evaluate("document.body.innerText")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light dark"
        main.write_text(WSGI.format("app", "1 / 0") + "import os\n")
        page.until("document.body?.innerText.includes('ZeroDivisionError')")
        main.write_text("import os\n" + WSGI.format("app", "os.environ['GREETING'].encode()"))
        page.until("document.body?.innerText === 'hello'")
        (tmp_path / ".env").write_text("GREETING=goodbye\n")
        eventually(lambda: get("/", port) == (200, b"goodbye"), "the new .env")
        main.write_text(WSGI.format("app", "1 / 0"))
        eventually(lambda: get("/", port)[0] == 500, "the broken code")
        assert get("/", port, Accept="text/plain")[1].endswith(b"ZeroDivisionError: division by zero\n")
        told = json.loads(get("/", port, Accept="application/json")[1])
        assert (told["code"], told["error"]) == ("app-error", "ZeroDivisionError: division by zero")
