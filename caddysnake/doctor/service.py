"""Who runs the daemon, or would: its process, its unit of systemd, its user and groups."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import resource
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..config.plan.accounts import AccountError, group_id
from ..config.plan.places import is_same
from ..daemon.system.cgroups import runs_systemd
from ..files import user_name
from .reach import Who, of_process

_ASKED = ("Id", "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "MainPID", "User", "Group",
          "SupplementaryGroups", "RuntimeDirectory", "LimitNOFILE", "ExecStartPre", "ExecStart")  # fmt: skip
_PATTERNS = ("caddysnake.service", "caddysnake@*.service")
_TIMEOUT_S = 10.0
_SOCKETS = re.compile(r"--socket-dir[ =]([^ ;]+)")
_EXCERPT = re.compile(r"\d+ \| ")
"""Of a file, with a mark below: its message has said all."""
_CONFIG = re.compile(r"(?:--config|-c)[ =]([^ ;]+)")
_REASON_MAX = 200
_ENDED_FROM_OUTSIDE = ("signal", "core-dump", "watchdog", "oom-kill")


class Unit(NamedTuple):
    """A unit of systemd, as it says itself."""

    name: str
    state: str
    """active, activating, failed, inactive …"""
    result: str = ""
    """Of its last end: success, exit-code, signal …"""
    restarts: int = 0
    pid: int = 0
    user: str = ""
    group: str = ""
    groups: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    """Those that are made for it at each start."""
    config: str = ""
    socket_dir: str | None = None
    """Where it has the sockets of blocks whose site names none; None: where it is by default."""
    front_group: str = ""
    """The group that its folder is given to at each start: Caddy's user is to be in it."""
    open_files: str = ""
    """LimitNOFILE."""

    @property
    def is_down(self) -> bool:
        """It is to run and does not, or not for long."""
        return self.state in ("failed", "activating") or (self.state == "inactive" and self.result != "success")

    @property
    def log(self) -> str:
        """What shows why."""
        return f"journalctl --unit {self.name} --lines 50"

    def silence(self) -> tuple[str, str]:
        """Why nobody answers for it, and the command that goes on from there."""
        if self.state == "active":
            text = f"{self.name} runs (process {self.pid}), but does not answer: it hangs, or its folder was removed"
            return text, f"systemctl restart {self.name}"
        if not self.is_down and not self.restarts:
            return f"{self.name} does not run", f"systemctl start {self.name}"
        again = f", after {self.restarts} restart{'' if self.restarts == 1 else 's'}" if self.restarts else ""
        text = f"{self.name} {'has failed' if self.state == 'failed' else f'is {self.state}'}{again}"
        if self.result in _ENDED_FROM_OUTSIDE:  # its log has nothing of it
            start = f"systemctl start {self.name}" if self.state == "failed" else self.log
            return f"{text} ({self.result}; {self.log})", start
        words = last_words(self)
        return text + (f": {shortened(words)}" if words else f" ({self.result})"), self.log


class Runner(NamedTuple):
    """``who`` runs the daemon, or would."""

    who: Who
    gid: int
    """The group of what it makes."""
    unit: Unit | None = None
    pid: int | None = None

    @property
    def open_files(self) -> int:
        """How many files the daemon may have open, or would."""
        if self.pid is None and self.unit is not None and self.unit.open_files.isdecimal():
            return int(self.unit.open_files)
        with contextlib.suppress(OSError):  # of another user
            return resource.prlimit(self.pid or 0, resource.RLIMIT_NOFILE)[1]
        return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def runner_of(file: str | None, pid: int | None) -> Runner:
    """Of the daemon ``pid``; where none runs, of the unit that runs ``file``; else whoever asks."""
    if pid is not None and (found := of_process(pid)) is not None:
        who, gid = found
        known = units() if runs_systemd() else []
        return Runner(who, gid, next((unit for unit in known if unit.name == _unit_of(pid)), None), pid)
    unit = None if file is None else unit_of(file)
    if unit is not None and (account := _account(unit)) is not None:
        return Runner(*account, unit)
    me = Who(user_name(os.geteuid()), os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))
    return Runner(me, os.getegid(), unit)


def unit_of(file: str) -> Unit | None:
    """The unit that runs ``file``, if one is there for that. Systemd lists no instance that it has stopped, but knows
    one that is asked for by its name.
    """
    name = os.path.basename(file).removesuffix(".caddyfile")
    instance = (f"caddysnake@{name}.service",) if re.fullmatch(r"[\w.-]+", name) else ()
    known = units(*_PATTERNS, *instance) if runs_systemd() else []
    return next((unit for unit in known if unit.config and is_same(file, unit.config)), None)


def in_container() -> bool:
    """Whether this is one of Docker's, or podman's: there is no unit to change, and another image is started anew."""
    return any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv")))


def units(*patterns: str) -> list[Unit]:
    """Those that systemd knows, of ours if no others are asked for."""
    return list(read_units(_printed("systemctl", "show", *(patterns or _PATTERNS), f"--property={','.join(_ASKED)}")))


def _printed(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def read_units(shown: str) -> Iterator[Unit]:
    """What `systemctl show` has printed of several units."""
    for block in shown.strip().split("\n\n"):
        says = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if says.get("LoadState") == "loaded":
            yield _unit(says)


def _unit(says: Mapping[str, str]) -> Unit:
    command = says.get("ExecStart", "")
    config, sockets = _CONFIG.search(command), _SOCKETS.findall(command)
    return Unit(
        says["Id"],
        says.get("ActiveState", ""),
        says.get("Result", ""),
        int(says.get("NRestarts") or 0),
        int(says.get("MainPID") or 0),
        says.get("User", ""),
        says.get("Group", ""),
        tuple(says.get("SupplementaryGroups", "").split()),
        (*(f"/run/{name}" for name in says.get("RuntimeDirectory", "").split()), *sockets),
        config[1] if config else "",
        sockets[-1] if sockets else None,
        "".join(re.findall(r"/install -d [^;]*-g (\S+)", says.get("ExecStartPre", ""))[:1]),
        says.get("LimitNOFILE", ""),
    )


def shortened(text: str) -> str:
    """One line of ``text``: its beginning, and its end, where programs say what it was."""
    half = _REASON_MAX // 2
    return text if len(text) <= _REASON_MAX else f"{text[:half]} … {text[-half:]}"


def last_words(unit: Unit) -> str:
    """The last error in its log, as one line; empty when there is none, or it may not be read."""
    return last_error(_printed("journalctl", "--unit", unit.name, "--lines", "60", "--output", "cat", "--no-pager"))


def last_error(log: str) -> str:
    """The last line of ``log`` that is an error of ours, with the end of its traceback."""
    for line in reversed(log.splitlines()):
        try:
            record = json.loads(line)
        except ValueError:
            if line.startswith("Error:"):
                return line
            continue
        if isinstance(record, dict) and record.get("level") in ("error", "fatal") and record.get("logger") == "daemon":
            error = str(record.get("error", "")).strip()
            end = "" if _EXCERPT.match(error) else error.rpartition("\n")[2].strip()
            return f"{record.get('msg', '')}{': ' if end else ''}{end}"
    return ""


def _account(unit: Unit) -> tuple[Who, int] | None:
    try:
        entry = pwd.getpwnam(unit.user) if unit.user else pwd.getpwuid(0)
        gid = group_id(unit.group) if unit.group else entry.pw_gid
        gids = frozenset({gid, *os.getgrouplist(entry.pw_name, gid), *map(group_id, unit.groups)})
    except (KeyError, AccountError):
        return None  # DynamicUser, or an account that is gone
    return Who(entry.pw_name, entry.pw_uid, gids), gid


def _unit_of(pid: int) -> str:
    try:
        said = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""
    return "".join(re.findall(r"/([^/\s]+\.service)", said)[-1:])
