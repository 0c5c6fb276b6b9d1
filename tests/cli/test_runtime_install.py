"""`caddysnake runtime install` with whichever pip there is: in our own environment, in the app's, bundled, or none."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from support.pythons import find_python, make_venv, site_of
from support.terminals import on_terminal

import caddysnake

TIMEOUT_S = 300


def without_pip(folder: Path, base: str = sys.executable) -> Path:
    """An environment like ours that has no pip; the path of its Python."""
    make_venv(base, folder)
    ours = Path(os.__file__).parent / "site-packages"
    for place in {*map(Path, sys.path), ours}:
        if place.name == "site-packages" and place.is_dir():
            for entry in place.iterdir():
                link = site_of(folder) / entry.name
                if not entry.name.startswith(("pip", "caddysnake", "__editable__", "_")) and not link.exists():
                    link.symlink_to(entry)
    (site_of(folder) / "ours.pth").write_text(f"{Path(caddysnake.__file__).parents[1]}\n")
    return folder / "bin" / "python"


def install(ours: Path, python: Path, runtime: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [str(ours), "-m", "caddysnake", "runtime", "install", "--python", str(python)]
    return subprocess.run(
        command,
        env={**os.environ, "CADDYSNAKE_RUNTIME_DIR": str(runtime), **environ},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def imports(python: Path, runtime: Path) -> bool:
    (place,) = runtime.iterdir()
    code = f"import sys; sys.path.insert(0, {str(place)!r}); import httptools.parser.parser"
    return subprocess.run([str(python), "-I", "-c", code], timeout=TIMEOUT_S, check=False).returncode == 0


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_neither_our_environment_nor_the_apps_needs_pip(tmp_path: Path, version: str) -> None:
    theirs = make_venv(find_python(version), tmp_path / "app") / "bin" / "python"
    done = install(without_pip(tmp_path / "ours"), theirs, tmp_path / "runtime")
    assert done.returncode == 0, done.stderr
    assert imports(theirs, tmp_path / "runtime")


def test_an_old_pip_installs_for_a_newer_python(tmp_path: Path) -> None:
    """pip 23.0, as Debian 12 has it, cannot run in Python 3.12."""
    ours = without_pip(tmp_path / "ours")
    subprocess.run([str(ours), "-m", "ensurepip"], capture_output=True, timeout=TIMEOUT_S, check=True)
    theirs = make_venv(find_python("3.13"), tmp_path / "app") / "bin" / "python"
    done = install(ours, theirs, tmp_path / "runtime")
    assert done.returncode == 0, done.stderr
    assert imports(theirs, tmp_path / "runtime")


def test_a_terminal_is_shown_what_pip_does(tmp_path: Path) -> None:
    theirs = make_venv(find_python("3.12"), tmp_path / "app") / "bin" / "python"
    environ = {"CADDYSNAKE_RUNTIME_DIR": str(tmp_path / "runtime")}
    shown = on_terminal(tmp_path, "runtime", "install", "--python", str(theirs), environ=environ)
    assert b"Collecting httptools==" in shown
    assert b"Installed for cpython-312" in shown


def test_without_a_network_it_says_what_to_bring(tmp_path: Path) -> None:
    theirs = make_venv(find_python("3.12"), tmp_path / "app") / "bin" / "python"
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    done = install(Path(sys.executable), theirs, tmp_path / "runtime", **nothing)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cannot fetch httptools==")
    assert "pip download --no-deps --only-binary=:all: --python-version 3.12 httptools==" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_not_to_be_had_is_said_and_keeps_nothing_else_from_being_installed(tmp_path: Path) -> None:
    theirs = make_venv(find_python("3.12"), tmp_path / "app") / "bin" / "python"
    here = [f"{name}=={metadata.version(name)}" for name in ("httptools", "websockets")]
    download = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", "3.12", "-d", "wheels"]
    subprocess.run([sys.executable, "-m", "pip", *download, *here], cwd=tmp_path, check=True, timeout=TIMEOUT_S)
    some = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_CONFIG_FILE": os.devnull}
    done = install(Path(sys.executable), theirs, tmp_path / "runtime", **some)
    assert done.returncode == 0, done.stderr
    assert f": {', '.join(here)} in " in done.stdout.splitlines()[-1]
    assert done.stderr.startswith("Warning: cannot fetch uvloop==")
    assert "Without uvloop workers use asyncio's own loop." in done.stderr
    assert imports(theirs, tmp_path / "runtime")
    (place,) = (tmp_path / "runtime").iterdir()
    assert (place / "websockets").is_dir()


@pytest.mark.parametrize("program", ["/bin/ls", "/nothing/there"])
def test_what_is_no_python_is_named(tmp_path: Path, program: str) -> None:
    done = install(Path(sys.executable), Path(program), tmp_path / "runtime")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {program} does not run")
    assert done.stderr.count("\n") == 1
