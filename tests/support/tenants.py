"""Users of their own for tests, and a Python that every user may run. Only root can have these.

The checkout and its Python may lie where only root may look, such as below ``/root``. So what an app's user needs is
linked into a public folder: the standard library, our package, and what that depends on.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import caddysnake
from caddysnake.files import closed_to

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")

ALICE, BOB = 54321, 54322
"""Users without a name: numbers that no system gives away."""

_UNUSED = ("test", "site-packages", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "config-*")


class Public(NamedTuple):
    """``python``: an interpreter for everybody. ``site``: a folder with our package and all that it needs."""

    python: str
    site: str


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _link_tree(source: str | Path, target: str | Path, *unused: str) -> None:
    shutil.copytree(source, target, copy_function=_link, ignore=shutil.ignore_patterns(*unused), dirs_exist_ok=True)


def _needed(name: str, seen: set[str]) -> Iterator[importlib.metadata.Distribution]:
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in seen:
        return
    seen.add(name)
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:  # of other platforms, or Pythons
        return
    yield found
    for requirement in found.requires or ():
        if "extra ==" not in requirement:
            match = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert match is not None
            yield from _needed(match[0], seen)


def _link_site(site: Path) -> None:
    _link_tree(Path(caddysnake.__file__).parent, site / "caddysnake", "__pycache__")
    link_distribution("caddysnake-sidecar", site)


def link_distribution(name: str, site: Path) -> None:
    """Put what is installed under that name, and all that it needs but our own package, into the folder ``site``."""
    for distribution in _needed(name, set()):
        tops = {file.parts[0] for file in distribution.files or () if ".." not in file.parts}
        for top in tops - {"caddysnake", "bin"}:
            source = Path(str(distribution.locate_file(top)))
            if source.is_dir():
                _link_tree(source, site / top)
            elif source.is_file() and source.suffix in (".py", ".so"):
                _link(str(source), str(site / top))


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter, and that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tenants-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def public_python() -> Iterator[Public]:
    """An interpreter, and our package, for everybody."""
    with public_folder() as folder:
        (folder / "site").mkdir()
        _link_site(folder / "site")
        real = os.path.realpath(sys.executable)
        python = real if closed_to(real, ALICE, frozenset({ALICE})) is None else _link_python(real, folder / "python")
        yield Public(python, str(folder / "site"))


def _link_python(real: str, root: Path) -> str:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for name in ("bin", "lib"):
        (root / name).mkdir(parents=True)
    _link_tree(sysconfig.get_path("stdlib"), root / "lib" / version, *_UNUSED)
    library = sysconfig.get_config_var("LIBDIR")
    program = Path(real).read_bytes()
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        for path in Path(library).glob("libpython*.so*"):
            _link(str(path.resolve()), str(root / "lib" / path.name))
        # Where the program looks for its library (ELF, DT_RUNPATH) is a string in it, and must not become longer.
        here, there = library.encode(), b"$ORIGIN/../lib"
        assert len(there) <= len(here)
        program = program.replace(here + b"\0", there.ljust(len(here), b"\0") + b"\0")
    python = root / "bin" / version
    python.write_bytes(program)
    python.chmod(0o755)
    return str(python)


def give(folder: Path, uid: int, mode: int = 0o750) -> None:
    """Make ``folder``, and all in it, that user's."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)
    folder.chmod(mode)
