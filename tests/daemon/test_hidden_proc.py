"""A /proc that shows an ordinary user only the processes that it may attach to: hidepid of proc(5), ProtectProc= of
systemd. Those of the daemon are undumpable, so it sees none of its own."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import kernels
from support.admin import call
from support.daemon import Process, alive, children, get
from support.tenants import ALICE, Public, give, needs_root, public_folder

pytestmark = [needs_root, pytest.mark.system]

APP = """
import os
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"%d %d" % (os.getpid(), os.access(f"/proc/{os.getppid()}/stat", os.R_OK))]
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with public_folder() as found:
        (found / "main.py").write_text(APP)
        block = f"\tpython {{\n\t\tmodule_wsgi main:app\n\t\tworking_dir {found}\n\t\tworkers 1\n\t}}\n"
        (found / "Caddyfile").write_text("{\n\tadmin unix/admin.sock\n}\nunix/a.sock {\n" + block + "}\n")
        give(found, ALICE)
        yield found


@contextlib.contextmanager
def started(public: Public, folder: Path, option: str, *before: str) -> Iterator[Process]:
    """The daemon as ALICE, where /proc is mounted with ``option``."""
    mount = f'mount -t proc -o {option} proc /proc && exec "$@"'
    place = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    user = ["setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", "--inh-caps=-all"]
    environ = {"PYTHONPATH": public.site, "PYTHONDONTWRITEBYTECODE": "1", "XDG_RUNTIME_DIR": str(folder)}
    command = [*place, *user, public.python, *before, "-m", "caddysnake", "run"]
    process = Process(command, folder, "daemon", environ)
    try:
        yield process
    finally:
        process.close()


@pytest.mark.parametrize("option", ["hidepid=1", "hidepid=2", "hidepid=4"])
def test_an_app_is_served_and_replaced_all_the_same(public: Public, folder: Path, option: str) -> None:
    with started(public, folder, option) as process:
        process.wait_for_log(" ready in ")
        status, body = get("/", path=folder / "a.sock")
        assert status == 200
        pid, seen = map(int, body.split())
        assert not seen
        process.wait_for_log("admin API ready")
        status, _, answer = call(folder / "admin.sock", "GET", "/workers")
        assert status == 200, answer
        process.wait_for_log("max_memory does nothing")
        os.kill(pid, signal.SIGKILL)
        status, body = get("/", path=folder / "a.sock")
        assert status == 200
        assert int(body.split()[0]) != pid
        left = children(process.pid)
        assert process.stop() == 0
        assert not [each for each in left if alive(each)]


def test_a_kernel_that_does_not_tell_otherwise_is_named(public: Public, folder: Path) -> None:
    (folder / "older.py").write_text(Path(kernels.__file__).read_text())
    with started(public, folder, "hidepid=2", str(folder / "older.py"), public.python) as process:
        assert process.wait() == 1
        assert "/proc hides it (hidepid, or ProtectProc= of a unit)" in process.log
