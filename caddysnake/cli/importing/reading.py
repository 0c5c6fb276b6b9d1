"""What was named, a file or a command, to the text of a Caddyfile."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from typing import Final

from ...caddyfile.formatter import format_source
from ...config.language.adapt import ConfigErrors, load
from .block import Block, caddyfile, word
from .launch import CannotImport, Launch, commands, shell
from .servers import KNOWN, block_of, server_of
from .sources import dockerfile, kind, procfile, unit

_SIZE_MAX: Final = 1_000_000
READ_BY_SERVERS: Final = ("GUNICORN_CMD_ARGS", "UVICORN_", "GRANIAN_", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS")
"""What names of variables begin with that a command finds in its environment."""
LOOKED_FOR: Final = ("Procfile", "Dockerfile", "Containerfile", "uwsgi.ini", "gunicorn.conf.py", "hypercorn.toml")


def imported(words: list[str], environ: dict[str, str]) -> str:
    """The Caddyfile of a file, a command, or what lies here. Raises ``CannotImport``: nothing is understood."""
    if not words:
        found = [name for name in LOOKED_FOR if os.path.isfile(name)]
        if not found:
            raise CannotImport(
                f"there is none of {', '.join(LOOKED_FOR)} here (name a file, or the command that starts it)"
            )
        words = found[:1]
    if len(words) == 1 and (os.path.exists(words[0]) or len(words[0].split()) < 2):
        blocks = _file(words[0])
    else:
        line = words[0] if len(words) == 1 else shlex.join(words)
        blocks = _blocks(shell(line, Launch([], environ=environ)), "")
    return _loadable(caddyfile(blocks).encode(errors="replace").decode())


def _loadable(text: str) -> str:
    """``text`` with every line that is none as a comment that says why."""
    while True:
        try:
            load(text.encode(), "Caddyfile", {})
            return text
        except ConfigErrors as exc:
            lines = text.splitlines()
            for error in exc.errors:
                written = lines[error.line - 1].lstrip()
                if not written.startswith(("#", "module_", "{", "}")) and not written.endswith("{"):
                    lines[error.line - 1] = f"# {written}: {error.message.removeprefix(written.split()[0] + ': ')}"
            if lines == text.splitlines():
                return text
            text = format_source("\n".join([*lines, ""]))


def _file(path: str) -> list[Block]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_SIZE_MAX)
    except OSError as exc:
        raise CannotImport(
            f"cannot read {path}: {exc.strerror} (name a file, or the command that starts the server)"
        ) from None
    except UnicodeDecodeError:
        raise CannotImport(f"{path}: the file is not UTF-8 (name a text file)") from None
    folder, name = os.path.split(path)
    here = Launch([], file=path, folder=folder)
    elsewhere = Launch([], file=path, beside=folder)
    match kind(path, text):
        case "procfile":
            return _procfile(text, here)
        case "unit":
            return _blocks([unit(text, elsewhere)], path)
        case "dockerfile":
            return _blocks([dockerfile(text, elsewhere)], path)
        case "ini":
            return _blocks([replace(here, words=["uwsgi", "--ini", name])], path)
        case "gunicorn" | "hypercorn" as server:
            return _blocks([replace(here, words=[server, "--config", name])], path)
        case "shell":
            return _blocks(shell(text, here), path)
        case _:
            raise CannotImport(
                f"{path}: what this is cannot be told (known are gunicorn.conf.py, uwsgi.ini, hypercorn.toml, a "
                "Procfile, a Dockerfile, a unit of systemd, a shell script)"
            )


def _procfile(text: str, start: Launch) -> list[Block]:
    found = list(procfile(text, start))
    blocks = [block for _, launch in found if server_of(launch) for block in _blocks([launch], launch.file)]
    if not blocks:
        raise CannotImport(f"{start.file}: no process in it starts one of {KNOWN} (name the command that does)")
    for name, launch in found:
        if not server_of(launch):
            own = ["{\n" + "".join(f"env_var {each} {word(text)}\n" for each, text in launch.environ.items()) + "}"]
            blocks[0].add(
                *(("release",) if name == "release" else ("process", name)),
                *launch.words,
                *(own if launch.environ and name != "release" else ()),
            )
    return blocks


def _blocks(launches: list[Launch], source: str) -> list[Block]:
    """A block for each server among the commands. Raises ``CannotImport`` when there is none."""
    found = [each for launch in launches for each in commands(launch)]
    served = [each for each in found if server_of(each)]
    if not served:
        where = source or "the command"
        if len(found) == 1:
            where, source = f"{found[0].file or where}: {shlex.join(found[0].words)!r}", ""
        raise CannotImport(f"{where} starts none of {KNOWN} (name the command that does)")
    made = [(block_of(each), each) for each in served]
    blocks: list[Block] = []
    listening: dict[str, Block] = {}
    for block, launch in sorted(made, key=lambda each: each[0].has("autoreload")):
        places = [each.rpartition(":")[2].rstrip("}") for each in block.addresses]
        if first := next((listening[each] for each in places if each in listening), None):
            first.note(shlex.join(launch.words), "only one can listen at this address; write the one that is meant")
            continue
        listening.update(dict.fromkeys(places, block))
        block.comments.insert(0, f"From {source or shlex.join(launch.words)}.")
        blocks.append(block)
    for each in found[: found.index(served[0])]:
        blocks[0].command("release", each.words)
    return blocks
