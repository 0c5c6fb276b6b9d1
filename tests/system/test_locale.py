"""A locale that cannot write what a Caddyfile says: the file is UTF-8, and so are the paths in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.daemon import PATIENCE_S, Process, get

pytestmark = pytest.mark.system

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
APP = """
import os, sys
def app(environ, start_response):
    start_response("200 OK", [])
    return [os.fsencode(os.getcwd()), b" ", os.environb[b"WORD"], b" ", sys.getfilesystemencoding().encode()]
"""


def site(folder: Path, app: str) -> str:
    return (
        f"{{\n\tadmin unix/{folder}/admin.sock\n}}\nunix/{folder}/a.sock {{\n\tpython {{\n\t\tmodule_wsgi {app}\n"
        f"\t\tworking_dir {folder}/prüj\n\t\tenv_file prüf.env\n\t\tpass_env *\n\t\tworkers 1\n\t}}\n}}\n"
    )


def started(folder: Path, app: str, runtime: str) -> Process:
    (folder / "prüj").mkdir()
    (folder / "prüj" / "main.py").write_text(APP, encoding="utf-8")
    (folder / "prüj" / "prüf.env").write_text("WORD=grün\n", encoding="utf-8")
    text = site(folder, app).replace("workers 1", f"workers 1\n\t\tworkers_runtime {runtime}")
    (folder / "Caddyfile").write_text(text, encoding="utf-8")
    return Process([sys.executable, "-m", "caddysnake", "run"], folder, "daemon", ASCII)


@pytest.mark.parametrize("runtime", ["process", "thread"])
def test_an_app_in_a_folder_that_the_locale_cannot_name_is_served(tmp_path: Path, runtime: str) -> None:
    process = started(tmp_path, "main:app", runtime)
    try:
        process.wait_for_log(" ready in ")
        expected = f"{tmp_path}/prüj grün ascii".encode()
        assert get("/", path=tmp_path / "a.sock") == (200, expected)  # its own encoding is the app's affair
    finally:
        process.close()


def test_what_is_wrong_there_is_said_in_a_line(tmp_path: Path) -> None:
    process = started(tmp_path, "nowhere:app", "process")
    try:
        assert process.wait(PATIENCE_S) == 1
        assert "no module named nowhere" in process.log
        assert "Traceback" not in process.log
    finally:
        process.close()
