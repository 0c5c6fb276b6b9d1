"""Who may import whom. The table in CONTRIBUTING.md, held by a test.

It states two facts about the product: a worker loads nothing of the daemon's, and the host never imports guest code.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "caddysnake"

# What each folder (or module at the top) may import besides itself and the standard library.
OURS: dict[str, set[str]] = {
    "caddyfile": {"files"},
    "channel": set(),
    "files": set(),
    "installation": set(),
    "keyring": set(),
    "libraries": set(),
    "sandbox": set(),
    "logs": {"channel", "sandbox"},
    "public": set(),
    "http1": {"libraries"},
    "placeholders": {"caddyfile", "files"},
    "matchers": {"caddyfile", "placeholders"},
    "config": {"caddyfile", "channel", "files", "installation", "matchers", "placeholders", "sandbox"},
    "aio": {"channel", "http1"},
    "worker": {"aio", "channel", "http1", "keyring", "libraries", "sandbox"},
    "relay": {"aio", "channel", "http1", "libraries", "matchers", "placeholders"},
    "daemon": {"caddyfile", "channel", "config", "files", "http1", "installation", "keyring", "libraries", "logs"}
    | {"matchers", "placeholders", "sandbox"},
    "admin": {"channel", "config", "daemon", "http1", "logs", "sandbox"},
    "doctor": {"config", "daemon", "files", "installation", "sandbox"},
    "cli": {"admin", "caddyfile", "channel", "config", "daemon", "doctor", "files", "installation", "libraries"}
    | {"logs", "matchers", "placeholders", "relay"},
    "__main__": {"cli"},
}
THEIRS: dict[str, set[str]] = {
    "http1": {"httptools"},
    "matchers": {"re2"},
    "config": {"cronsim", "pydantic"},
    "logs": {"orjson"},
    "worker": {"httptools", "uvloop", "websockets"},
    "relay": {"httptools", "uvloop"},
    "daemon": {"orjson", "pydantic", "uvloop", "watchfiles"},
    "admin": {"orjson", "prometheus_client", "pydantic"},
    "cli": {"orjson", "pydantic", "uvloop"},
}
# The first code in the app's interpreter has just loaded our folders under this name.
PRIVATE_NAME = "_caddysnake"

MODULES = sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


class Import(NamedTuple):
    line: int
    level: int
    """0 is an absolute import, 1 from the module's own folder, 2 from the one above."""
    module: str


def imports(path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield Import(node.lineno, node.level, node.module)
            else:
                yield from (Import(node.lineno, node.level, alias.name) for alias in node.names)


def folder_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def resolve(path: Path, found: Import) -> str | None:
    """The folder of ours it leads to; None for the package itself: `from .. import __version__`."""
    base = path.parent.relative_to(PACKAGE).parts
    target = (*base[: len(base) - (found.level - 1)], *found.module.split("."))
    if len(target) == 1 and not (PACKAGE / target[0]).is_dir() and not (PACKAGE / f"{target[0]}.py").exists():
        return None
    return target[0]


def complaints(path: Path) -> Iterator[str]:
    folder = folder_of(path)
    for found in imports(path):
        where = f"{path.relative_to(ROOT)}:{found.line}"
        top = found.module.split(".")[0]
        if found.level > 0:
            target = resolve(path, found)
            if target is not None and target != folder and target not in OURS[folder]:
                yield f"{where}: {folder} may not import {target}"
        elif top == "caddysnake":
            yield f"{where}: import {found.module} relatively: a guest has another name for the package"
        elif top not in sys.stdlib_module_names | THEIRS.get(folder, set()) | {PRIVATE_NAME}:
            yield f"{where}: {folder} may not import {top}"


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent != PACKAGE or path.stem in OURS], ids=name)
def test_a_folder_imports_only_what_lies_below_it(path: Path) -> None:
    assert list(complaints(path)) == []


def test_every_folder_has_its_place() -> None:
    assert {folder_of(path) for path in MODULES} - {"__init__"} <= OURS.keys()


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=name)
def test_a_package_is_a_map_and_imports_nothing(path: Path) -> None:
    assert list(imports(path)) == []


@pytest.mark.parametrize("folder", ["aio", "worker", "channel", "http1", "sandbox"])
def test_no_module_of_a_guest_has_a_name_of_the_standard_library(folder: str) -> None:
    assert {path.stem for path in (PACKAGE / folder).rglob("*.py")} - {"__init__"} & sys.stdlib_module_names == set()
