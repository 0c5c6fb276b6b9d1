"""What is behind the name of an app's Python has changed: workers to come are started from what is there.

Whether a reload starts them, a crash, or a request.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.admin import command
from support.daemon import Process, daemon, eventually, get, python_site, workers
from support.pythons import another_version, install_runtime, make_venv, site_of

pytestmark = pytest.mark.system

APP = """
import sys
import tenant_library

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/late":
        import helper
        return [helper.NAME.encode()]
    return [f"{sys.version_info[0]}.{sys.version_info[1]} {tenant_library.NAME}".encode()]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        said = f"{sys.version_info[0]}.{sys.version_info[1]} {tenant_library.NAME}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": said.encode()})
"""
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another Python, with our libraries for it in ``runtime`` beside the tests."""
    python = another_version()
    install_runtime(python, runtime_of(tmp_path_factory))
    return python


def runtime_of(factory: pytest.TempPathFactory) -> Path:
    return factory.getbasetemp() / "runtime"


@pytest.fixture
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"CADDYSNAKE_RUNTIME_DIR": str(runtime_of(tmp_path_factory))}


def version_of(python: str) -> str:
    said = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", said], check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def site(*lines: str, interface: str = "wsgi", folder: str = ".", venv: str = "venv") -> str:
    own = (f"module_{interface} main:{interface}", f"working_dir {folder}", f"venv {venv}")
    return python_site("unix/app.sock", *own, *lines)


def said(folder: Path, target: str = "/") -> str:
    status, body = get(target, path=folder / "app.sock")
    assert status == 200, body
    return body.decode()


def reload(process: Process, folder: Path, *words: str) -> None:
    command(process, folder, "reload", *words, check=True)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("runtime", ["process", "thread"])
def test_a_venv_made_anew_of_another_python_is_taken_at_a_reload(
    tmp_path: Path, other: str, environ: dict[str, str], interface: str, runtime: str
) -> None:
    make_venv(sys.executable, tmp_path / "venv", name="old")
    (tmp_path / "main.py").write_text(APP)
    text = site("workers 2", f"workers_runtime {runtime}", interface=interface)
    with daemon(tmp_path, text, environ=environ) as process:
        assert said(tmp_path) == f"{OWN} old"
        make_venv(other, tmp_path / "venv", "--clear", name="new")
        reload(process, tmp_path)
        assert {said(tmp_path) for _ in range(8)} == {f"{version_of(other)} new"}


@pytest.mark.parametrize("runtime", ["process", "thread"])
def test_a_worker_that_crashes_after_its_venv_was_made_anew_is_started_from_the_new_one(
    tmp_path: Path, other: str, environ: dict[str, str], runtime: str
) -> None:
    make_venv(sys.executable, tmp_path / "venv", name="old")
    (tmp_path / "main.py").write_text(APP + "\nimport os\nopen('pid', 'w').write(str(os.getpid()))\n")
    with daemon(tmp_path, site("workers 1", f"workers_runtime {runtime}"), environ=environ) as process:
        assert said(tmp_path) == f"{OWN} old"
        make_venv(other, tmp_path / "venv", "--clear", name="new")
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        process.wait_for_log("is another than it was")
        assert said(tmp_path) == f"{version_of(other)} new"


@pytest.mark.parametrize("words", [(), ("--changed",), ("--app", "main:wsgi")])
def test_a_link_moved_to_a_release_with_another_python_is_followed_at_a_reload(
    tmp_path: Path, other: str, environ: dict[str, str], words: tuple[str, ...]
) -> None:
    link = two_releases(tmp_path, other)
    with daemon(tmp_path, site("workers 2", folder="current", venv="current/venv"), environ=environ) as process:
        assert said(tmp_path) == f"{OWN} old"
        point(link, "two")
        reload(process, tmp_path, *words)
        assert {said(tmp_path) for _ in range(8)} == {f"{version_of(other)} new"}
        assert said(tmp_path, "/late") == "two"


@pytest.mark.parametrize("runtime", ["process", "thread"])
def test_what_an_old_worker_imports_after_the_link_has_moved_is_of_its_own_release(
    tmp_path: Path, environ: dict[str, str], runtime: str
) -> None:
    link = two_releases(tmp_path, sys.executable)
    text = site("workers 1", f"workers_runtime {runtime}", folder="current", venv="current/venv")
    with daemon(tmp_path, text, environ=environ) as process:
        assert said(tmp_path) == f"{OWN} old"
        point(link, "two")
        assert said(tmp_path, "/late") == "one"
        reload(process, tmp_path)
        assert said(tmp_path, "/late") == "two"
        assert said(tmp_path) == f"{OWN} new"


@pytest.mark.parametrize("where", ["PYTHONPATH", "venv"])
def test_late_imports_from_a_library_behind_a_link_are_of_the_release_that_was_there_at_the_start(
    tmp_path: Path, where: str
) -> None:
    link = two_releases(tmp_path, sys.executable)
    for name in ("one", "two"):
        folder = tmp_path / name
        site_packages = site_of(folder / "venv")
        (folder / "lib").mkdir()
        shutil.move(folder / "helper.py", (folder / "lib" if where == "PYTHONPATH" else site_packages) / "helper.py")
    more = [f"env_var PYTHONPATH {tmp_path}/current/lib"] if where == "PYTHONPATH" else []
    with daemon(tmp_path, site("workers 1", *more, folder="current", venv="current/venv")):
        point(link, "two")
        assert said(tmp_path, "/late") == "one"


def test_tenants_follow_a_link_and_an_interpreter_when_they_are_started(
    tmp_path: Path, other: str, environ: dict[str, str]
) -> None:
    tenant = tmp_path / "tenant"
    tenant.mkdir()
    link = two_releases(tenant, other)
    with daemon(tmp_path, site(folder="{host}/current", venv="{host}/current/venv"), environ=environ) as process:

        def ask() -> tuple[int, str]:
            status, body = get("/", path=tmp_path / "app.sock", Host="tenant")
            return status, body.decode()

        assert ask() == (200, f"{OWN} old")
        point(link, "two")
        reload(process, tmp_path)
        eventually(lambda: ask() == (200, f"{version_of(other)} new"), "the other Python")
        make_venv(sys.executable, tenant / "two" / "venv", "--clear", name="newest")
        for pid in workers(process.pid):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: ask() == (200, f"{OWN} newest"), "the venv made anew")


def test_an_interpreter_that_was_replaced_runs_the_workers_to_come(tmp_path: Path) -> None:
    """As a package manager does it: a new file takes the name of the old."""
    make_venv(sys.executable, tmp_path / "venv", "--copies")
    (tmp_path / "main.py").write_text(APP)
    python = tmp_path / "venv" / "bin" / "python3"

    def program() -> int:
        (pid,) = workers(process.pid)
        return os.stat(f"/proc/{pid}/exe").st_ino

    with daemon(tmp_path, site("workers 1")) as process:
        assert program() == python.stat().st_ino
        shutil.copy2(python, tmp_path / "fresh")
        os.replace(tmp_path / "fresh", python)
        assert program() != python.stat().st_ino
        (pid,) = workers(process.pid)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(workers(process.pid) - {pid}) == 1, "another worker")
        assert said(tmp_path) == f"{OWN} from the venv"
        assert program() == python.stat().st_ino


def test_a_path_file_added_to_the_venv_counts_at_a_reload(tmp_path: Path) -> None:
    """An editable install: what is read when an interpreter starts."""
    make_venv(sys.executable, tmp_path / "venv")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "helper.py").write_text("NAME = 'elsewhere'\n")
    (tmp_path / "main.py").write_text(APP)
    with daemon(tmp_path, site("workers 1")) as process:
        (site_of(tmp_path / "venv") / "elsewhere.pth").write_text(f"{tmp_path}/elsewhere\n")
        reload(process, tmp_path)
        assert said(tmp_path, "/late") == "elsewhere"


def test_a_python_for_which_there_are_no_libraries_yet_is_named_and_the_old_workers_serve_on(
    tmp_path: Path, other: str
) -> None:
    make_venv(sys.executable, tmp_path / "venv", name="old")
    (tmp_path / "main.py").write_text(APP)
    environ = {"CADDYSNAKE_RUNTIME_DIR": str(tmp_path / "runtime")}
    with daemon(tmp_path, site("workers 1"), environ=environ) as process:
        make_venv(other, tmp_path / "venv", "--clear", name="new")
        refused = command(process, tmp_path, "reload")
        assert refused.returncode == 1
        assert version_of(other) in refused.stderr
        assert "caddysnake runtime install --python" in refused.stderr
        assert said(tmp_path) == f"{OWN} old"
        install_runtime(other, tmp_path / "runtime")
        reload(process, tmp_path)
        assert said(tmp_path) == f"{version_of(other)} new"


def two_releases(folder: Path, other: str) -> Path:
    """Two releases, each with a virtual environment of its own, and a link to the first."""
    for name, python, library in (("one", sys.executable, "old"), ("two", other, "new")):
        (folder / name).mkdir()
        (folder / name / "main.py").write_text(APP)
        (folder / name / "helper.py").write_text(f"NAME = {name!r}\n")
        make_venv(python, folder / name / "venv", name=library)
    link = folder / "current"
    link.symlink_to("one")
    return link


def point(link: Path, where: str) -> None:
    coming = link.with_name("coming")
    coming.symlink_to(where)
    os.replace(coming, link)
