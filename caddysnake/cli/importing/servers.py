"""Which server a command starts, and through what."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from .asgi_servers import GRANIAN, UVICORN, fastapi, hypercorn
from .block import Block
from .gunicorn import gunicorn
from .launch import Launch
from .options import names as words_of
from .uwsgi import uwsgi

_SERVERS: Final[dict[str, Callable[[Block, list[str], Launch], None]]] = {
    "gunicorn": gunicorn,
    "uvicorn": UVICORN.read,
    "granian": GRANIAN.read,
    "hypercorn": hypercorn,
    "uwsgi": uwsgi,
    "fastapi": fastapi,
}
_SYSTEM: Final = ("", "/usr", "/usr/local", "/bin", ".")
_TAKES_A_NAME: Final = words_of(
    "-u -g -p -n --user --group --name --extra --with --from --package --only-group gosu su-exec"
)
"""What stands in front of words that may be called as a server is."""
_SWITCHES_USER = re.compile(r"(?:\S*/)?(?:gosu|su-exec|(?:sudo|runuser) (?:-u|--user)) ([^ :]+):?(\S*)")
_INTERPRETER = re.compile(r"python(3(\.\d+)?)?")
KNOWN: Final = ", ".join(_SERVERS)


def server_of(launch: Launch) -> str:
    """The name of the server that ``launch`` starts; empty: none that is known."""
    at = _place(launch.words)
    return posixpath.basename(launch.words[at]) if at is not None else ""


def _place(words: list[str]) -> int | None:
    for at, word in enumerate(words):
        if posixpath.basename(word) in _SERVERS and (at == 0 or words[at - 1] not in _TAKES_A_NAME):
            return at
    return None


def block_of(launch: Launch) -> Block:
    """The block that runs what ``launch`` does, whose server is known."""
    at = _place(launch.words)
    assert at is not None
    block = Block()
    block.server = posixpath.basename(launch.words[at])
    before, path = launch.words[:at], launch.words[at]
    if switched := _SWITCHES_USER.match(" ".join(before)):
        launch = replace(launch, user=switched[1], group=switched[2])
        del before[: switched[0].count(" ") + 1]
    if launch.folder and launch.folder != ".":
        block.put("working_dir", launch.folder)
    if launch.user and launch.user not in ("root", "0"):
        block.put("user", launch.user)
        if launch.group:
            block.put("group", launch.group)
    _interpreter(block, before, path, launch)
    for setting, why in launch.notes:
        block.note(setting, why)
    limits = [" ".join(line[1:]) for line in launch.lines if line[0] == "limits"]
    if limits:
        block.put("limits", "{\n" + "\n".join(limits) + "\n}")
    for name, *words in launch.lines:
        if name == "release":
            block.command(name, words)
        elif name != "limits":
            block.add(name, *words)
    _SERVERS[block.server](block, launch.words[at + 1 :], launch)
    for name, value in launch.environ.items():
        if name == "PATH" or name.startswith(("PYTHONUNBUFFERED", "PIP_", "POETRY_", "UV_")):
            continue
        if name in ("PORT", "WEB_CONCURRENCY") or (name == "VIRTUAL_ENV" and block.has("venv")):
            continue
        if launch.from_files.get(name) != value:
            block.environ(name, value)
    return block


def _interpreter(block: Block, before: list[str], path: str, launch: Launch) -> None:
    """Find the virtual environment: by the command's own path, else by what the environment says."""
    wrappers = [word for word in before if word != "-m"]
    folder = ""
    for word in (path, *before):
        if "/" in word and posixpath.basename(posixpath.dirname(word)) == "bin":
            folder = posixpath.dirname(posixpath.dirname(word))
            break
    if folder in _SYSTEM:
        folder = launch.environ.get("VIRTUAL_ENV", "")
        for part in launch.environ.get("PATH", "").split(":"):
            root = posixpath.dirname(part) if posixpath.basename(part) == "bin" else ""
            if not folder and root not in _SYSTEM:
                folder = root
    names = [posixpath.basename(word) for word in wrappers]
    if names[:2] == ["uv", "run"] and not folder:
        folder = ".venv"
    if folder:
        block.put("venv", folder)
    elif names[:2] in (["poetry", "run"], ["pipenv", "run"], ["pdm", "run"], ["hatch", "run"]):
        block.note(
            " ".join(names[:2]),
            f"name the virtual environment with `venv` (`{names[0]} env info` or `--venv` prints it)",
        )
    rest = [
        word
        for word, name in zip(wrappers, names, strict=True)
        if not _INTERPRETER.fullmatch(name)
        and name not in ("uv", "poetry", "pipenv", "pdm", "hatch", "run", "exec", "env")
    ]
    if rest:
        block.note(
            shlex.join(rest),
            "stood in front of the server, and is not run: what it does belongs into the app or the unit",
        )
