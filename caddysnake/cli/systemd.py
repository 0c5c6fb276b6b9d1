"""Print, or install, the files by which systemd runs caddysnake: units, and an account.

    caddysnake systemd                      print them
    caddysnake systemd --install            write them, make the account, a first Caddyfile if there is none, and a link
                                            in /usr/local/bin where there is no command caddysnake on PATH
    caddysnake systemd --install --now      and start the service, now and at each boot

The service runs /etc/caddysnake/Caddyfile as the user caddysnake, with its sockets in /run/caddysnake, where Caddy can
reach them and others cannot. caddysnake@NAME runs /etc/caddysnake/NAME.caddyfile as the user NAME. With --users the
service is root, which python blocks with `user` need.
"""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from ..daemon.system.cgroups import runs_systemd
from ..files import closed_to
from . import units
from .reading import CommandFailed
from .units import UnitPlace

_GROUPS: Final = ("caddy", "www-data", "http")
"""Of Caddy's user, on Debian and elsewhere; the first that there is."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_@:.,/+=-]+")
_TIMEOUT_S: Final = 120.0
_LINK: Final = "/usr/local/bin/caddysnake"

_FIRST_CADDYFILE: Final = """\
# What caddysnake serves. Write a site here, then:
#
#   systemctl reload caddysnake
#
# For an app at https://blog.example.com:
#
# blog.example.com {
# 	python {
# 		module_wsgi blog.wsgi:application
# 		working_dir /srv/blog
# 		venv /srv/blog/.venv
# 	}
# }
#
# Caddy's own file, with that block replaced by a reverse_proxy to its socket, is printed by
#
#   caddysnake caddyfile --config /etc/caddysnake/Caddyfile --socket-dir /run/caddysnake
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--install", action="store_true", help="write the files instead of printing them; needs root")
    parser.add_argument("--now", action="store_true", help="with --install: start the service, now and at each boot")
    parser.add_argument("--users", action="store_true", help="run the daemon as root, for python blocks with user")
    parser.add_argument("-c", "--config", metavar="FILE", default=units.CONFIG, help=f"(default: {units.CONFIG})")
    parser.add_argument("--caddy-group", metavar="GROUP", help="a group of Caddy's user (default: caddy, or www-data)")
    parser.add_argument("--root", metavar="DIR", help="with --install: only write the files, below this folder")


def main(args: argparse.Namespace) -> int:
    """Print or install; the exit status."""
    _check(args)
    group, why = (args.caddy_group, "--caddy-group names it") if args.caddy_group else _caddy_group()
    place = UnitPlace(_program(), args.config, group, _version())
    found = units.files(place, args.users)
    print(f"Caddy's group, for which the sockets are: {group} ({why})", file=sys.stderr)
    if args.install:
        _install(found, args)
    else:
        print("\n".join(f"# {path}\n{text}" for path, text in found.items()), end="")
    return 0


def _check(args: argparse.Namespace) -> None:
    for option, value in (("--config", args.config), ("--caddy-group", args.caddy_group)):
        if value is not None and not _PLAIN.fullmatch(value):
            raise CommandFailed(f"{option} {value!r}: a unit takes letters, digits and @:.,/+=_- only")
    if not os.path.isabs(args.config):
        raise CommandFailed(f"--config {args.config}: write the whole path, as a service starts in no folder of yours")
    if (args.now or args.root) and not args.install:
        raise CommandFailed("--now and --root go with --install")
    if args.now and args.root:
        raise CommandFailed("what is below --root is not this system: it cannot be started")
    if args.install and not args.root and os.geteuid() != 0:
        raise CommandFailed("only root may install a service: use sudo, or --root DIR to write the files elsewhere")


def _program() -> str:
    """The command beside this interpreter, or the module."""
    script = os.path.join(os.path.dirname(sys.executable), "caddysnake")
    words = [script] if os.access(script, os.X_OK) else [sys.executable, "-m", "caddysnake"]
    for word in words:
        if not _PLAIN.fullmatch(word):
            raise CommandFailed(f"{word!r} cannot be named in a unit: install caddysnake at a plainer path")
    return " ".join(words)


def _caddy_group() -> tuple[str, str]:
    """The first that there is of those that packages of Caddy make, and why it."""
    absent: list[str] = []
    for name in _GROUPS:
        if _exists(name):
            none = f", and none called {' or '.join(absent)}" if absent else ""
            return name, f"there is a group of this name{none}; --caddy-group names another"
        absent.append(name)
    return _GROUPS[0], f"as Caddy's packages name it: there is none of {', '.join(absent)} here"


def _version() -> int:
    """systemd's; the oldest that we know when it cannot be told."""
    try:
        command = ["systemctl", "--version"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        told = ""
    found = re.match(r"systemd (\d+)", told)
    return int(found[1]) if found else units.OLDEST


def _install(found: dict[str, str], args: argparse.Namespace) -> None:
    root = args.root or ""
    if not root:
        if not runs_systemd():
            raise CommandFailed("systemd does not run here; --root DIR only writes the files")
        if args.caddy_group is None and not any(_exists(name) for name in _GROUPS):
            raise CommandFailed("there is no group caddy: install Caddy first, or name its group with --caddy-group")
    for path, text in found.items():
        _write(root + path, text)
    if not os.path.lexists(root + args.config):
        _write(root + args.config, _FIRST_CADDYFILE)
    program = _program()
    if not os.path.lexists(root + _LINK) and " " not in program and (root or shutil.which("caddysnake") is None):
        Path(root + _LINK).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(program, root + _LINK)
        print(f"wrote {root}{_LINK}, a link to {program}", file=sys.stderr)
    if root:
        return
    _call("systemd-sysusers", "/etc/sysusers.d/caddysnake.conf")
    if not args.users:
        _check_readable(args.config)
    _call("systemctl", "daemon-reload")
    if args.now:
        _call("systemctl", "enable", "--quiet", "caddysnake.service")
        _call("systemctl", "restart", "caddysnake.service")
        print("caddysnake runs, now and after each boot. How it is: systemctl status caddysnake", file=sys.stderr)
    else:
        print(f"Edit {args.config}, then: systemctl enable --now caddysnake", file=sys.stderr)


def _exists(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def _check_readable(config: str) -> None:
    """The service's user can run what is installed, and read its file."""
    account = pwd.getpwnam(units.ACCOUNT)
    for path in (sys.executable, os.path.dirname(__file__), config):
        closed = closed_to(path, account.pw_uid, frozenset((account.pw_gid,)))
        if closed is not None:
            hint = "chmod it" if path == config else "install caddysnake where every user may read it, such as /opt"
            raise CommandFailed(f"user {units.ACCOUNT} may not read {path}: the mode of {closed} keeps it out; {hint}")


def _write(path: str, text: str) -> None:
    try:
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if os.path.exists(path) and Path(path).read_text() == text:
            return
        Path(path).write_text(text)
        os.chmod(path, 0o644)
    except OSError as exc:
        raise CommandFailed(f"cannot write {path}: {exc.strerror}") from None
    print(f"wrote {path}", file=sys.stderr)


def _call(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError) as exc:
        raise CommandFailed(f"{' '.join(command)}: {exc}") from None
    if done.returncode:
        told = (done.stderr or done.stdout).strip()
        raise CommandFailed(f"{' '.join(command)} failed with status {done.returncode}: {told}")
