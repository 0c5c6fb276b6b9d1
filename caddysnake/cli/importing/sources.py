"""Where commands are found: Procfiles, units of systemd, Dockerfiles, scripts."""

from __future__ import annotations

import json
import os
import posixpath
import re
import shlex
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Final

from ...caddyfile.errors import CaddyfileError
from ...config.plan.envfile import parse
from .launch import CannotImport, Launch, expand, expanded, shell, unclosed

_PROCFILE = re.compile(r"(?P<name>[A-Za-z0-9_-]+):\s*(?P<command>\S.*)")
_SUFFIXES: Final = {
    ".service": "unit", ".ini": "ini", ".py": "gunicorn", ".toml": "hypercorn", ".sh": "shell", ".bash": "shell",
    ".dockerfile": "dockerfile", ".containerfile": "dockerfile",
}  # fmt: skip
_UNITS_OWN: Final = "the unit's own: `caddysnake systemd` writes one for the daemon"
_LIMITS: Final = {"LimitNOFILE": "open_files", "LimitNPROC": "processes", "LimitFSIZE": "file_size", "Nice": "niceness"}
_OF_THE_UNIT: Final = {
    **dict.fromkeys(("Restart", "RestartSec"), "workers that end are always replaced, with back-off"),
    "ExecReload": "`caddysnake reload`",
    **dict.fromkeys(("KillMode", "KillSignal"), "the daemon ends its workers in order, within `grace_period`"),
    "TimeoutStopSec": "`grace_period` is how long requests may run on",
    "TimeoutStartSec": "`start_timeout`",
    "RuntimeDirectory": "the folder of a socket has to be there: /run/caddysnake is made by the unit of the daemon",
    "PIDFile": "none is needed",
    "MemoryMax": "`limits { memory … }` or `max_memory` for each worker; for all, in the daemon's unit",
    "MemoryHigh": "`max_memory` for each worker; for all, in the daemon's unit",
    "UMask": "the mode of the socket stands in its address; apps with `user` have umask 027, others the daemon's",
    **dict.fromkeys(
        ("ExecStartPre", "ExecStartPost", "ExecStopPost"), "belongs into the deploy, before `caddysnake reload`"
    ),
}
_OF_THE_IMAGE: Final = {
    "HEALTHCHECK": "`health_uri`, and /health/ready of the admin API",
    "STOPSIGNAL": "SIGTERM ends the daemon in order",
    **dict.fromkeys(("EXPOSE", "VOLUME"), "the image's own"),
}


def procfile(text: str, start: Launch) -> Iterator[tuple[str, Launch]]:
    """The commands of a Procfile, each with the name of its process. Raises ``CannotImport``."""
    for at, raw in enumerate(text.splitlines(), 1):
        written = raw.strip()
        if not written or written.startswith("#"):
            continue
        match = _PROCFILE.fullmatch(written)
        if match is None:
            raise CannotImport(f"{start.file}:{at}: {written!r} is no process (write name: command)")
        here = replace(start, file=f"{start.file}:{at}", is_port_given=True)
        for launch in shell(match["command"], here):
            yield match["name"], launch


def unit(text: str, start: Launch) -> Launch:
    """The command of a service. Raises ``CannotImport``: it has none."""
    launch = replace(start)
    set_here: dict[str, str] = {}
    files: list[str] = []
    command = ""
    at = 0
    for line, section, name, written in _settings(text, start.file):
        value = written.replace("%%", "%")
        if section != "Service":
            if section not in ("Unit", "Install"):
                launch.notes.append((f"[{section}] {name}={value}", _UNITS_OWN))
            continue
        if re.search(r"(?<!%)(%%)*%\w", written):
            why = "specifiers of systemd are not replaced here: write what they stand for"
            launch.notes.append(("%i and the like", why))
        if name == "ExecStart":
            command, at = value.lstrip("@-:+!").replace("$$", "$"), line
        elif name == "WorkingDirectory":
            launch.folder = value.lstrip("-")
            if launch.folder == "~":
                launch.folder = ""
                launch.notes.append(("WorkingDirectory=~", "write the home folder of the user as `working_dir`"))
        elif name == "User":
            launch.user = value
        elif name == "Group":
            launch.group = value
        elif name == "Environment":
            pairs = dict(each.split("=", 1) for each in _words(value, start.file, line) if "=" in each)
            set_here = {**set_here, **pairs} if value else {}  # an empty one takes back those before it
        elif name == "EnvironmentFile":
            files = [*files, value] if value else []
        elif name in _LIMITS and value.partition(":")[0].lstrip("-").isdecimal():
            launch.lines.append(("limits", _LIMITS[name], value.partition(":")[0]))
        elif name == "ExecStartPre" and _is_of_app(words := _words(value.lstrip("@-:+!"), start.file, line)):
            launch.lines.append(("release", *words))
        elif name not in ("Type", "NotifyAccess", "Description"):
            launch.notes.append((f"{name}={value}", _OF_THE_UNIT.get(name, _UNITS_OWN)))
    if not command:
        raise CannotImport(f"{start.file}: there is no ExecStart= in it (name the service's unit)")
    for setting in files:
        _read(setting, launch, bool(set_here))
    launch.environ = {**set_here, **launch.from_files}
    launch.words = expanded(_words(command, start.file, at), launch.environ)
    return replace(launch, file=f"{start.file}:{at}")


def _read(setting: str, launch: Launch, is_more_set: bool) -> None:
    """Read an ``EnvironmentFile=``. ``is_more_set``: there is an ``Environment=``, which a file outranks."""
    path = setting.removeprefix("-")
    launch.lines.append(("env_file", path))
    notes = ["the file must be there"] if setting.startswith("-") else []
    found = launch.read(path)
    try:
        launch.from_files.update(parse(found[1].encode(), found[0]) if found is not None else {})
    except CaddyfileError as exc:
        notes.append(str(exc))
    if found is None and is_more_set:
        notes.append("it cannot be read from here: of what both set, systemd takes the file's, and here `env_var` wins")
    launch.notes += [(f"EnvironmentFile={setting}", each) for each in notes]


def _is_of_app(words: list[str]) -> bool:
    """It is a command of the app's own environment, and not one of the machine's."""
    folder = posixpath.dirname(words[0]) if words else ""
    return posixpath.basename(folder) == "bin" and folder not in ("/bin", "/usr/bin", "/usr/local/bin")


def _joined(lines: Iterator[tuple[int, str]], passed_over: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Join ``lines`` that a backslash continues; each with the number of its first. ``passed_over``: what lines begin
    with that are none, also in the middle of another.
    """
    for at, raw in lines:
        written = raw.strip()
        if not written or written[0] in passed_over:
            continue
        while written.endswith("\\") and (following := next(lines, None)) is not None:
            more = following[1].strip()
            if more[:1] not in passed_over:
                written = f"{written[:-1].rstrip()} {more}"
        yield at, written


def _settings(text: str, file: str) -> Iterator[tuple[int, str, str, str]]:
    section = ""
    for at, written in _joined(enumerate(text.splitlines(), 1), ("#", ";")):
        if written.startswith("[") and written.endswith("]"):
            section = written[1:-1]
            continue
        name, equals, value = written.partition("=")
        if not equals or not section:
            raise CannotImport(f"{file}:{at}: {written!r} is no setting (write Name=value below a [Section])")
        yield at, section, name.strip(), value.strip()


def _words(text: str, file: str, line: int) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as exc:
        raise unclosed(f"{file}:{line}", exc) from None


def dockerfile(text: str, start: Launch) -> Launch:
    """The command of an image's last stage. Raises ``CannotImport``: it has none."""
    stages: dict[str, tuple[Launch, list[str], list[str]]] = {}
    launch = replace(start, environ={})
    entrypoint: list[str] = []
    command: list[str] = []
    name = ""
    at_command = 0
    arguments: dict[str, str] = {}
    for line, instruction, rest in _instructions(text):
        known = {**arguments, **launch.environ}
        match instruction:
            case "FROM":
                stages[name] = (launch, entrypoint, command)
                words = [each for each in expand(rest, known).split() if not each.startswith("--")]
                inherited = stages.get(words[0].lower()) if words else None
                launch, entrypoint, command = deepcopy(inherited or (start, [], []))
                name = words[2].lower() if len(words) > 2 else ""
            case "ARG":
                variable, _, default = rest.partition("=")
                arguments.setdefault(variable.strip(), default.strip("\"' "))
            case "ENV":
                launch.environ.update(_pairs(rest, known, start.file, line))
            case "WORKDIR":
                folder = expand(rest.strip("\"'"), known)
                launch.folder = posixpath.normpath(posixpath.join(launch.folder or "/", folder))
            case "USER":
                launch.user, _, launch.group = expand(rest.strip(), known).partition(":")
            case "ENTRYPOINT":
                entrypoint, command, at_command = _command(rest, known), [], line
            case "CMD":
                command, at_command = _command(rest, known), line
            case _ if instruction in _OF_THE_IMAGE:
                launch.notes.append((f"{instruction} {rest}", _OF_THE_IMAGE[instruction]))
    words = [*entrypoint, *command]
    if not words:
        raise CannotImport(f"{start.file}: there is no CMD and no ENTRYPOINT in it (name what starts the container)")
    # A word that is not a shell's may name a variable all the same, and means its letters then.
    return replace(launch, words=words, file=f"{start.file}:{at_command}")


def _command(text: str, environ: dict[str, str]) -> list[str]:
    try:
        words = json.loads(text)
    except ValueError:
        return ["sh", "-c", text]
    return [str(each) for each in words] if isinstance(words, list) else [text]


def _pairs(text: str, environ: dict[str, str], file: str, line: int) -> dict[str, str]:
    first, _, rest = text.partition(" ")
    if "=" not in first:
        return {first: expand(rest.strip(), environ)}
    return {
        name: expand(value, environ)
        for name, equals, value in (each.partition("=") for each in _words(text, file, line))
        if equals
    }


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    lines = enumerate(text.splitlines(), 1)
    for at, written in _joined(lines, ("#", "")):
        heredoc = re.search(r"<<-?[\"']?(\w+)[\"']?", written)
        if heredoc:
            next((raw for _, raw in lines if raw.strip() == heredoc[1]), None)
        instruction, _, rest = written.partition(" ")
        yield at, instruction.upper(), rest.strip()


def kind(path: str, text: str) -> str:
    """``procfile``, ``unit``, ``dockerfile``, ``ini``, ``gunicorn``, ``hypercorn`` or ``shell``; empty: unknown."""
    name = os.path.basename(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if "[Service]" in text:
        return "unit"
    if "[uwsgi]" in text:
        return "ini"
    if text.startswith("#!"):
        return "shell"
    is_image = re.search(r"(?mi)^from \S+", text) and re.search(r"(?m)^(CMD|ENTRYPOINT|RUN) ", text)
    if re.match(r"(Docker|Container)file", name) or is_image:
        return "dockerfile"
    return "procfile" if name.startswith("Procfile") or re.search(r"(?m)^web: ", text) else ""
