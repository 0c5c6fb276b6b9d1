"""What a person gets who gives the command something wrong: one clear message, never our own traceback."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import as_text, daemon, free_port, python_site

pytestmark = pytest.mark.system

GOOD = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"


def run(folder: Path, caddyfile: str | bytes, *arguments: str) -> tuple[int, str]:
    """Exit status and what is said by ``caddysnake run`` on ``caddyfile``."""
    raw = caddyfile.encode() if isinstance(caddyfile, str) else caddyfile
    (folder / "Caddyfile").write_bytes(raw)
    result = subprocess.run(
        [sys.executable, "-m", "caddysnake", "run", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout == ""
    return result.returncode, as_text(result.stderr)


def site(folder: Path, *lines: str) -> str:
    return python_site(f"unix/{folder}/app.sock", *lines)


def test_an_app_that_raises_on_import_shows_its_own_frames_and_exits_1(tmp_path: Path) -> None:
    """The traceback begins at the app's file: ours and importlib's frames are of no use to its author."""
    (tmp_path / "broken.py").write_text("import json\n\nraise RuntimeError('no database')\n")
    status, said = run(tmp_path, site(tmp_path, "module_wsgi broken:app"))
    assert status == 1
    assert f'File "{tmp_path}/broken.py", line 3, in <module>' in said
    assert "RuntimeError: no database" in said
    assert "/caddysnake/worker/" not in said  # where a log line says what listens, there is a folder of that name too
    assert "importlib" not in said


def test_a_variable_that_cannot_be_called_is_named(tmp_path: Path) -> None:
    """The message says what the variable is."""
    (tmp_path / "blog.py").write_text("app = 42\n")
    status, said = run(tmp_path, site(tmp_path, "module_wsgi blog:app"))
    assert status == 1
    assert "blog:app is 'int', which cannot be called" in said


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("def app(settings=None): ...", "write `blog:app()` to have it called"),
        ("def app(settings): ...", "A factory is named with parentheses and takes nothing: `blog:app()`"),
        ("async def app(environ, start_response): ...", "an ASGI app is async and takes (scope, receive, send)"),
    ],
)
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_what_takes_no_request_is_refused(tmp_path: Path, interface: str, source: str, hint: str) -> None:
    """It would be ready, and answer every request with 500."""
    (tmp_path / "blog.py").write_text(source)
    status, said = run(tmp_path, site(tmp_path, f"module_{interface} blog:app"))
    assert status == 1
    assert hint in said


def test_an_app_of_the_other_interface_is_told_from_what_it_takes(tmp_path: Path) -> None:
    """It would answer every request with 500."""
    asgi = "async def __call__(self, scope, receive, send): ..."
    (tmp_path / "blog.py").write_text(GOOD + f"class A:\n    {asgi}\napi = A()\n")
    status, said = run(tmp_path, f"unix/{tmp_path}/app.sock {{\n\tpython blog:api\n}}\n")
    assert status == 1
    assert "blog:api takes what ASGI apps take: write `module_asgi blog:api`" in said
    status, said = run(tmp_path, site(tmp_path, "module_asgi blog:app"))
    assert status == 1
    assert "write `module_wsgi blog:app`" in said


def test_a_missing_variable_gets_its_nearest_neighbour(tmp_path: Path) -> None:
    """A typing error is the usual cause."""
    (tmp_path / "blog.py").write_text(GOOD.replace("app", "application", 1))
    status, said = run(tmp_path, site(tmp_path, "module_wsgi blog:aplication"))
    assert status == 1
    assert "did you mean 'application'?" in said


def test_a_missing_module_is_found_out_before_anything_starts(tmp_path: Path) -> None:
    """The line of the Caddyfile is named, and where was searched."""
    status, said = run(tmp_path, site(tmp_path, "module_wsgi nothere:app"))
    assert status == 1
    assert "Caddyfile:3" in said
    assert "nothere" in said
    assert not (tmp_path / "app.sock").exists()


def test_a_variable_missing_from_the_environment_gets_the_hint_to_pass_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an allow list of the daemon's environment reaches an app, which surprises those who come from elsewhere."""
    monkeypatch.setenv("BLOG_DATABASE", "postgres://")
    (tmp_path / "blog.py").write_text("import os\n\nos.environ['BLOG_DATABASE']\n")
    status, said = run(tmp_path, site(tmp_path, "module_wsgi blog:app"))
    assert status == 1
    assert "pass_env BLOG_DATABASE" in said


def test_a_socket_in_use_names_who_holds_it(tmp_path: Path) -> None:
    """A second daemon must not steal the socket of the first."""
    (tmp_path / "blog.py").write_text(GOOD)
    caddyfile = site(tmp_path, "module_wsgi blog:app")
    with daemon(tmp_path, caddyfile) as first:
        status, said = run(tmp_path, caddyfile)
        assert status == 1
        assert f"process {first.pid}" in said


def test_a_socket_that_another_program_listens_on_is_left_alone(tmp_path: Path) -> None:
    """It is in use though no lock says so."""
    (tmp_path / "blog.py").write_text(GOOD)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "app.sock"))
        other.listen()
        status, said = run(tmp_path, site(tmp_path, "module_wsgi blog:app"))
        assert status == 1
        assert "is in use by process" in said
        assert (tmp_path / "app.sock").exists()


def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    """With the address, and what to do."""
    (tmp_path / "blog.py").write_text(GOOD)
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        status, said = run(tmp_path, f"tcp/127.0.0.1:{port} {{\n\tpython blog:app\n}}\n")
    assert status == 1
    assert f"tcp/127.0.0.1:{port}" in said
    assert "in use" in said


@pytest.mark.parametrize(
    ("caddyfile", "expected"),
    [
        pytest.param("unix//tmp/x.sock {\n\tpyton blog:app\n}\n", ["Caddyfile:2", "pyton", "python"], id="misspelt"),
        pytest.param("unix//tmp/x.sock {\n\tpython {\n\t\tmodule_wsgi blog:app\n", ["Caddyfile:", "}"], id="brace"),
        pytest.param(
            "unix//tmp/x.sock {\n\tpython {\n\t\tmodule_wsgi a:b\n\t\tmodule_asgi a:b\n\t}\n}\n",
            ["Caddyfile:", "module_wsgi", "module_asgi"],
            id="both kinds",
        ),
        pytest.param(
            "unix//tmp/x.sock {\n\tpython {\n\t\tmodule_wsgi blog:app\n\t\tworkers none\n\t}\n}\n",
            ["Caddyfile:4", "workers"],
            id="no workers",
        ),
        pytest.param(
            "unix//tmp/x.sock {\n\tpython {\n\t\tmodule_wsgi blog:app\n\t\tvenv nothing\n\t}\n}\n",
            ["Caddyfile:4", "venv"],
            id="no venv",
        ),
        pytest.param(f"unix//tmp/{'x' * 120}.sock {{\n\tpython blog:app\n}}\n", ["Caddyfile:1", "107"], id="long"),
        pytest.param(b"unix//tmp/\xff.sock {\n\tpython blog:app\n}\n", ["UTF-8"], id="not UTF-8"),
        pytest.param("(a) {\n\timport a\n}\nunix//tmp/x.sock {\n\timport a\n}\n", ["import"], id="import loop"),
    ],
)
def test_a_mistake_in_the_file_is_one_message_with_its_place(
    tmp_path: Path, caddyfile: str | bytes, expected: list[str]
) -> None:
    """Nothing is started, no socket is made, and no traceback of ours is shown."""
    (tmp_path / "blog.py").write_text(GOOD)
    status, said = run(tmp_path, caddyfile)
    assert status == 1
    assert "Traceback" not in said
    assert "Error: " in said
    for part in expected:
        assert part in said


def test_a_file_without_an_app_is_noted(tmp_path: Path) -> None:
    """Caddy's own file, named by mistake, would otherwise look as if it were served."""
    with daemon(tmp_path, "example.com {\n\trespond hello\n}\n") as process:
        assert "Note: Caddyfile has no python directive" in process.log


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """By its name."""
    status, said = run(tmp_path, "", "--config", "nothing.caddyfile")
    assert status == 1
    assert said == "Error: cannot read nothing.caddyfile: No such file or directory\n"
