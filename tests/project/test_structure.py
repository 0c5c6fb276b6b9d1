"""How the package is built: rooms in an order, no circles, maps that are true, nothing too large. Held by tests.

What a list below excuses is what there was when the rule came. A list only shrinks.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "caddysnake"

ROOMS: dict[str, list[str]] = {
    "daemon": [
        "system", "sockets", "workers", "commands", "apps", "tenants", "relays", "supervisor", "upgrade", "main",
    ],
    "daemon/workers": [
        "child", "lifecycle", "balancer", "slots", "hanging", "gauges", "deadline", "sink", "process", "giving",
        "worker",
        "warmup",
        "forking", "threads", "launchers",
    ],
    "worker": [
        "access_log", "arrival", "rounds", "file_parts", "in_flight", "coroutines", "app", "process",
        "websocket", "asgi", "wsgi", "servers", "threads", "rehearsal", "main", "fork_server", "execute", "bootstrap",
    ],
    "config": ["language", "plan", "check", "stock"],
}  # fmt: skip
"""The files and folders of a folder, from the bottom up: each imports what stands before it, and nothing behind."""

CIRCLES_ALLOWED: list[set[str]] = []

LINES_MAX = 400
LONG_FILES: set[str] = set()
"""Of ``daemon/``."""

METHODS_MAX, ATTRIBUTES_MAX = 30, 25
LARGE_CLASSES: set[str] = set()

MODULES = {
    path.relative_to(PACKAGE).as_posix().removesuffix(".py").removesuffix("/__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"
}
TREES = {name: ast.parse(path.read_bytes(), str(path)) for name, path in MODULES.items()}


def targets(name: str) -> Iterator[tuple[str, int]]:
    """The modules of ours that a module imports, be it for types only."""
    path = MODULES[name]
    base = name.split("/") if path.name == "__init__.py" else name.split("/")[:-1]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.level:
            place = [*base[: len(base) - (node.level - 1)], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                whole = "/".join([*place, alias.name])
                target = whole if whole in MODULES else "/".join(place)
                if target in MODULES and target != name:
                    yield target, node.lineno


IMPORTS = {name: sorted(set(targets(name))) for name in MODULES}


@pytest.mark.parametrize("folder", ROOMS)
def test_every_room_has_its_place(folder: str) -> None:
    there = {name.removeprefix(f"{folder}/").split("/")[0] for name in MODULES if name.startswith(f"{folder}/")}
    assert there == set(ROOMS[folder])


@pytest.mark.parametrize("folder", ROOMS)
def test_imports_lead_downwards(folder: str) -> None:
    order = ROOMS[folder]
    wrong = []
    for name, found in IMPORTS.items():
        if not name.startswith(f"{folder}/"):
            continue
        own = order.index(name.removeprefix(f"{folder}/").split("/")[0])
        for target, line in found:
            if target.startswith(f"{folder}/") and order.index(target.removeprefix(f"{folder}/").split("/")[0]) > own:
                wrong.append(f"caddysnake/{name}.py:{line}: imports {target}, which stands above it")
    assert wrong == []


def circles() -> list[set[str]]:
    """Strongly connected modules, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target, _ in IMPORTS[name]:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            circle = set(stack[stack.index(name) :])
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.append(circle)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 10_000))
    for name in MODULES:
        if name not in index:
            visit(name)
    sys.setrecursionlimit(limit)  # other tests prove what happens at it
    return found


def test_no_files_import_each_other_in_a_circle() -> None:
    assert [circle for circle in circles() if circle not in CIRCLES_ALLOWED] == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_a_map_names_what_there_is(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_bytes()))
    assert text is not None
    there = {each.stem for each in path.parent.iterdir() if each.suffix == ".py" or (each / "__init__.py").exists()}
    missing = {name for name in there - {"__init__", "__main__"} if f"``{name}``" not in text}
    assert missing == set(), "the map of a folder names each of its files and folders"


@pytest.mark.parametrize("path", sorted((PACKAGE / "daemon").rglob("*.py")), ids=lambda path: path.stem)
def test_a_file_of_the_daemon_can_be_read_in_one_go(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    name = path.relative_to(PACKAGE).as_posix()
    assert (lines > LINES_MAX) == (name in LONG_FILES), f"{name}: {lines} lines; at most {LINES_MAX}"


def classes() -> Iterator[tuple[str, int, int]]:
    """Each class with its numbers of methods and of attributes that are set on ``self``."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                methods = sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
                attributes = {
                    each.attr
                    for each in ast.walk(node)
                    if isinstance(each, ast.Attribute)
                    and isinstance(each.ctx, ast.Store)
                    and isinstance(each.value, ast.Name)
                    and each.value.id == "self"
                }
                yield f"{name}.{node.name}", methods, len(attributes)


def test_a_class_is_one_thing() -> None:
    large = {name for name, methods, attributes in classes() if methods > METHODS_MAX or attributes > ATTRIBUTES_MAX}
    assert large == LARGE_CLASSES


def reaches(name: str) -> Iterator[str]:
    """Places where a module uses a private attribute of something that it does not define itself."""
    tree = TREES[name]
    own = {
        each.attr if isinstance(each, ast.Attribute) else each.name
        for each in ast.walk(tree)
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id in ("self", "cls"))
    }
    slots = {each.value for each in ast.walk(tree) if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            continue
        if node.attr not in own | slots and node.attr not in NAMEDTUPLE:
            yield f"{name}.py:{node.lineno}: {ast.unparse(node)}"


NAMEDTUPLE = {"_replace", "_asdict", "_fields", "_make", "_field_defaults"}
LIBRARIES = {"_getframe", "_exit", "_actions", "_SubParsersAction", "_current_frames", "_rust_notify", "_count"} | {
    "_Compress",
    "_Decompress",
    "_set_running_loop",
}
"""Of the standard library's and others' own: public in all but name."""


def test_nobody_reaches_into_what_is_private_to_another() -> None:
    found = [line for name in MODULES for line in reaches(name) if line.rpartition(".")[2] not in LIBRARIES]
    assert found == []


SIDES = {
    "daemon": ("daemon", "admin", "doctor", "cli", "config", "caddyfile"),
    "an ASGI worker": ("worker/asgi", "worker/app", "worker/process", "worker/websocket", "aio", "http1", "channel"),
    "a WSGI worker": ("worker/wsgi", "worker/app", "worker/process", "http1", "channel"),
    "a relay": ("relay", "aio", "http1", "channel"),
}

@pytest.mark.parametrize("side", SIDES)
def test_a_name_means_one_class_in_a_process(side: str) -> None:
    seen: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        if any(name.startswith(f"{folder}/") for folder in SIDES[side]):
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    seen.setdefault(node.name, set()).add(name)
    assert {name: places for name, places in seen.items() if len(places) > 1} == {}
