"""The version of before the package's folders becomes this one, under load: no request fails, no worker is replaced.

It comes out of the repository's history. Where that is cut off, the present version stands in for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support.daemon import Process, workers
from support.load import Load, app

import caddysnake

pytestmark = pytest.mark.system

BEFORE = "0ee85fcb8e920bce6a3d1ce6f751e1beeb8115ed"
PACKAGE = Path(caddysnake.__file__).parent
DIRECT = "unix/x.sock {\n\tpython {\n\t\tmodule_%s main:%s\n\t\tworkers 2\n%s\t}\n}\n"
RELAYED = "unix/x.sock {\n\thandle /other* {\n\t\tpython main:wsgi\n\t}\n\tpython {\n\t\tmodule_%s main:%s\n%s\t}\n}\n"
TENANTS = "unix/x.sock {\n\tpython {\n\t\tmodule_%s main:%s\n\t\tworking_dir {host}\n%s\t}\n}\n"


def lay_out_before(folder: Path) -> str:
    """Put the package of then into ``folder``; its version."""
    archive = subprocess.run(
        ["git", "archive", BEFORE, "caddysnake"], cwd=PACKAGE.parent, capture_output=True, check=False
    )
    if archive.returncode == 0:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as opened:
            opened.extractall(folder, filter="data")
        return "0.1.0"
    lay_out_present(folder)
    return caddysnake.__version__


def lay_out_present(folder: Path) -> None:
    """Put this package into ``folder``, in the place of what is there."""
    shutil.rmtree(folder / "caddysnake", ignore_errors=True)
    shutil.copytree(PACKAGE, folder / "caddysnake", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.mark.parametrize(
    ("text", "interface", "more"),
    [
        pytest.param(DIRECT, "asgi", "", id="direct-asgi"),
        pytest.param(DIRECT, "wsgi", "\t\tworkers_runtime thread\n", id="direct-wsgi-threads"),
        pytest.param(RELAYED, "wsgi", "", id="relayed-wsgi"),
        pytest.param(TENANTS, "asgi", "", id="tenants-asgi"),
    ],
)
def test_it_becomes_this_one_and_loses_nothing(tmp_path: Path, text: str, interface: str, more: str) -> None:
    library = tmp_path / "lib"
    version = lay_out_before(library)
    for folder in (tmp_path, tmp_path / "test"):
        folder.mkdir(exist_ok=True)
        (folder / "main.py").write_text(app("1"))
    (tmp_path / "Caddyfile").write_text(text % (interface, interface, more))
    environ = {"PYTHONPATH": str(library), "PYTHONSAFEPATH": "1"}
    process = Process([sys.executable, "-m", "caddysnake", "run"], tmp_path, "daemon", environ)

    async def work() -> None:
        async with Load(tmp_path / "x.sock", 6) as load:
            await load.more(100)
            before = workers(process.pid)
            lay_out_present(library)
            process.popen.send_signal(signal.SIGUSR2)
            await asyncio.to_thread(process.wait_for_log, '"upgraded"')
            await load.more(200)
        assert load.failures == []
        assert workers(process.pid) == before

    with contextlib.closing(process):
        process.wait_for_log(" ready in ")
        process.wait_for_log("admin API ready")
        asyncio.run(work())
        assert f'"version":"{caddysnake.__version__}","before":"{version}"' in process.log
