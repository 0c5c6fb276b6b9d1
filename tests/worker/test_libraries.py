"""Our libraries under private names, in an interpreter that may have its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.worker import SITE

ROOT = Path(__file__).resolve().parents[2]


def run(source: str, *arguments: str) -> Any:
    """What ``source`` prints as JSON, run in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", "import json, sys\nfrom caddysnake import libraries\n" + source, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_where_no_folder_was_named_they_are_ordinary_imports() -> None:
    assert run("import httptools\nprint(json.dumps(libraries.load('httptools') is httptools))") is True


def test_after_that_they_leave_no_public_name_behind() -> None:
    source = """
libraries.use([sys.argv[1]])
loaded = [libraries.load(name).__name__ for name in ("httptools", "uvloop", "websockets")]
left = sorted(name for name in sys.modules if name.partition(".")[0] in ("httptools", "uvloop", "websockets"))
print(json.dumps([loaded, left]))
"""
    assert run(source, SITE) == [[f"_caddysnake_lib.{name}" for name in ("httptools", "uvloop", "websockets")], []]


@pytest.mark.parametrize("name", ["httptools", "uvloop"])
def test_what_the_app_has_imported_already_is_not_touched(name: str) -> None:
    source = f"""
import {name}, {name}.{'parser' if name == 'httptools' else 'loop'}
before = {{key: id(value) for key, value in sys.modules.items() if key.partition(".")[0] == {name!r}}}
libraries.use([sys.argv[1]])
libraries.load({name!r})
after = {{key: id(value) for key, value in sys.modules.items() if key.partition(".")[0] == {name!r}}}
print(json.dumps(before == after))
"""
    assert run(source, SITE) is True


def test_a_library_is_loaded_once() -> None:
    source = """
libraries.use([sys.argv[1]])
print(json.dumps(libraries.load('httptools') is libraries.load('httptools')))
"""
    assert run(source, SITE) is True


def test_the_first_folder_made_for_this_interpreter_is_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    source = """
libraries.use(sys.argv[1:])
print(json.dumps(libraries.load("httptools").__file__))
"""
    assert run(source, str(tmp_path / "empty"), str(tmp_path / "none"), SITE).startswith(SITE)


def test_a_folder_may_hold_one_child_for_each_interpreter(tmp_path: Path) -> None:
    source = """
import os
os.symlink(sys.argv[2], os.path.join(sys.argv[1], libraries.abi_tag()))
libraries.use([sys.argv[1]])
print(json.dumps([libraries.load("httptools").__file__, libraries.abi_tag()]))
"""
    file, tag = run(source, str(tmp_path), SITE)
    assert file.startswith(str(tmp_path))
    assert tag.startswith("cpython-3")
    assert "." not in tag


def test_a_folder_for_another_interpreter_is_no_use(tmp_path: Path) -> None:
    parser = tmp_path / "httptools" / "parser"
    parser.mkdir(parents=True)
    (parser / "parser.cpython-399-x86_64-linux-gnu.so").write_bytes(b"")
    source = """
try:
    libraries.use([sys.argv[1]])
except libraries.LibraryMissing as exc:
    print(json.dumps(str(exc)))
"""
    text = run(source, str(tmp_path))
    assert "caddysnake runtime install --python" in text


def test_a_library_that_is_in_none_of_the_folders_is_an_import_error(tmp_path: Path) -> None:
    source = """
libraries.use([sys.argv[1]])
try:
    libraries.load("no_such_library")
except ImportError:
    print(json.dumps("missing"))
"""
    assert run(source, SITE) == "missing"
