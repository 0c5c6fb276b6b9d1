"""Who runs the daemon, or would: its process, its unit of systemd, its user and groups."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..config.plan.places import is_same
from ..daemon.system.cgroups import runs_systemd
from .reach import Who, of_process, user_name

_ASKED = ("Id", "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "MainPID", "User", "Group",
          "SupplementaryGroups", "RuntimeDirectory", "ExecStart")  # fmt: skip
_PATTERNS = ("caddysnake.service", "caddysnake@*.service")
_TIMEOUT_S = 10.0
_SOCKETS = re.compile(r"--socket-dir[ =]([^ ;]+)")
_EXCERPT = re.compile(r"\d+ \| ")
"""Of a file, with a mark below: its message has said all."""
_CONFIG = re.compile(r"(?:--config|-c)[ =]([^ ;]+)")


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

    @property
    def is_down(self) -> bool:
        """It is to run and does not, or not for long."""
        return self.state in ("failed", "activating") or (self.state == "inactive" and self.result != "success")

    @property
    def log(self) -> str:
        """What shows why."""
        return f"journalctl --unit {self.name} --lines 50"


class Runner(NamedTuple):
    """``who`` runs the daemon, or would."""

    who: Who
    gid: int
    """The group of what it makes."""
    unit: Unit | None = None
    pid: int | None = None


def runner_of(file: str | None, pid: int | None, proc: str = "/proc") -> Runner:
    """Of the daemon ``pid``; where none runs, of the unit that runs ``file``; else whoever asks."""
    known = units() if runs_systemd() else []
    if pid is not None and (found := of_process(pid, proc)) is not None:
        who, gid = found
        return Runner(who, gid, next((unit for unit in known if unit.name == _unit_of(proc, pid)), None), pid)
    unit = next((unit for unit in known if file and unit.config and is_same(file, unit.config)), None)
    if unit is not None and (account := _account(unit)) is not None:
        return Runner(*account, unit)
    return Runner(Who(user_name(os.geteuid()), os.geteuid(), frozenset({os.getegid(), *os.getgroups()})), os.getegid())


def in_container(root: str = "/") -> bool:
    """Whether this is one of Docker's, or podman's: there is no unit to change, and another image is started anew."""
    return any(os.path.exists(os.path.join(root, name)) for name in (".dockerenv", "run/.containerenv"))


def units(*patterns: str) -> list[Unit]:
    """Those that systemd knows, of ours if no others are asked for."""
    command = ["systemctl", "show", *(patterns or _PATTERNS), f"--property={','.join(_ASKED)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return list(read_units(done.stdout))


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
    )


def last_words(unit: Unit) -> str:
    """The last error in its log, as one line; empty when there is none, or it may not be read."""
    command = ["journalctl", "--unit", unit.name, "--lines", "60", "--output", "cat", "--no-pager"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return last_error(done.stdout)


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
        gid = _gid(unit.group) if unit.group else entry.pw_gid
        gids = frozenset({gid, *os.getgrouplist(entry.pw_name, gid), *map(_gid, unit.groups)})
    except KeyError:
        return None  # DynamicUser, or an account that is gone
    return Who(entry.pw_name, entry.pw_uid, gids), gid


def _gid(name: str) -> int:
    import grp

    return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid


def _unit_of(proc: str, pid: int) -> str:
    try:
        said = (Path(proc) / str(pid) / "cgroup").read_text()
    except OSError:
        return ""
    found = re.findall(r"/([^/\s]+\.service)", said)
    return found[-1] if found else ""
