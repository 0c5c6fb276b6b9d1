"""Finds the command on the command line and hands over to its module.

A module is imported only when its command is called: formatting a file need not pay for an event loop. Exit statuses
are Caddy's: 0 for success, 1 for a start or command that failed, 2 for a forced end.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NoReturn, Protocol, cast

from .. import __version__
from .reading import CommandFailed
from .terminal import protect

COMMANDS: Final[dict[str, str]] = {
    "run": "run the apps of a Caddyfile, with --caddy also a stock Caddy in front of them",
    "serve": "serve one app, without a Caddyfile",
    "reload": "have the running daemon carry out its Caddyfile as it is now, losing no request",
    "upgrade": "have the running daemon become the version that is installed now, losing no request",
    "promote": "let a new build that is on trial take over now",
    "rollback": "give the connections back to the build before",
    "exec": "run a command as an app is",
    "run-schedule": "run a schedule of an app now",
    "scale": "give an app another number of workers, without a reload",
    "stop": "stop the running daemon",
    "status": "show how the running daemon is: apps, workers, what runs and what was refused",
    "logs": "show what the daemon and its apps have logged last, and what comes",
    "profile": "show where a running app spends its time",
    "dump": "have a worker write the stacks of its threads to the log",
    "validate": "check a Caddyfile, and what it names on disk",
    "adapt": "print a Caddyfile's meaning as JSON",
    "caddyfile": "print a Caddyfile as a stock Caddy needs it",
    "fmt": "format a Caddyfile",
    "import": "print a Caddyfile for an app that gunicorn, uvicorn, granian, hypercorn or uWSGI runs",
    "doctor": "look for what is wrong with this machine, and say how to fix it",
    "systemd": "print or install the units by which systemd runs it",
    "runtime": "install what workers need for another Python version",
    "environ": "print the environment",
    "completion": "print a completion script for your shell",
    "manpage": "write the manual page",
    "version": "print the version",
}
"""Every command with its line in the help."""

PROGRAM: Final = "caddysnake"
EXIT_FAILED: Final = 1
STATE: Final = "CADDYSNAKE_STATE"  # as in daemon.upgrade.handover, which takes long to import
REHEARSAL: Final = "CADDYSNAKE_REHEARSAL"
_REHEARSAL_NICENESS: Final = 5
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_OF_OTHERS: Final = {"start": ["run"], "restart": ["reload"], "ps": ["status"], "check": ["validate"]}


class Command(Protocol):
    """What a command's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its arguments."""

    def main(self, args: argparse.Namespace) -> int:
        """Do it; the exit status."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong as everything else here does, and exits as Caddy does: argparse itself exits with 2."""

    def error(self, message: str) -> NoReturn:
        """Print *message* and leave."""
        unknown, _, words = message.partition("unrecognized arguments: ")
        hint = _of_others(self.prog, words.split()) if words and not unknown else ""
        self.exit(EXIT_FAILED, f"Error: {message}{hint}\nSee: {self.prog} --help\n")


def _of_others(prog: str, words: list[str]) -> str:
    """What to write in the place of ``words``, which mean something to other servers."""
    first = words[0] if words else ""
    if os.path.basename(first) == "Caddyfile" or first.endswith(".caddyfile"):
        return f": write --config {first}"
    if prog.endswith(" run") and _names_an_app(first):
        return f": {PROGRAM} serve {first} serves one app, {PROGRAM} run those of a Caddyfile"
    if prog.endswith(" serve") and first.startswith("-"):
        return f". For options of gunicorn, uvicorn and others `{PROGRAM} import COMMAND…` prints a Caddyfile"
    return ""


def _names_an_app(word: str) -> bool:
    """``main:app``, ``main.py``."""
    module, colon, variable = word.partition(":")
    return word.endswith(".py") or bool(colon and module.replace(".", "_").isidentifier() and variable)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line (without the program's name; the process's when not given); the exit status."""
    if argv is None:
        _speak_utf8()
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        protect(words[0] if words else "")
    if STATE in os.environ or REHEARSAL in os.environ:
        _be_private()
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except CommandFailed as exc:
        for label, text in (("Error", str(exc)), ("Hint", exc.hint)):
            if text:
                print(f"{label}: {text}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        return _give_up_output()  # whoever read it has had enough
    except FileNotFoundError:
        if _stands_somewhere():
            raise
        print("Error: the current directory has been removed: change to one that is there", file=sys.stderr)
        return EXIT_FAILED
    except OSError as exc:
        if exc.errno not in _FULL or exc.filename is not None:
            raise
        print(f"Error: cannot write the output: {exc.strerror}", file=sys.stderr)
        return _give_up_output()
    except KeyboardInterrupt:
        return 130


def _give_up_output() -> int:
    """Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_FAILED


def _speak_utf8() -> None:
    """Go on in Python's UTF-8 mode (PEP 540), where the locale has another encoding or ``PYTHONUTF8=0`` forbids it: a
    Caddyfile is UTF-8, whatever the terminal is, and so are the paths in it.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _stands_somewhere() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _be_private() -> None:
    """This is a daemon that goes on, or tries whether it could: what it holds is nobody's business, from the start."""
    from ..daemon.system import processes

    processes.undumpable()
    if REHEARSAL in os.environ:
        os.nice(_REHEARSAL_NICENESS)


def _dispatch(words: list[str]) -> int:
    name = words[0] if words else "help"
    if name in ("-h", "--help", "help"):
        return _help(words[1:])
    if name in ("-v", "-V", "--version"):
        name, words = "version", ["version"]
    if name not in COMMANDS:
        what = f"unknown option {name}" if name.startswith("-") else f'unknown command "{name}"'
        print(f"Error: {what}{_hint(name)}\nSee: {PROGRAM} --help", file=sys.stderr)
        return EXIT_FAILED
    command = _load(name)
    return command.main(_parser(name, command).parse_args(words[1:]))


def _help(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        _parser(words[0], _load(words[0])).print_help()
        return 0
    width = max(map(len, COMMANDS))
    print(f"{PROGRAM} {__version__} runs Python web apps behind a stock Caddy.\n")
    print(f"Usage: {PROGRAM} COMMAND [ARGUMENTS]\n\nCommands:")
    for name, summary in COMMANDS.items():
        print(f"  {name:{width}}  {summary}")
    print(f"\nMore on one of them: {PROGRAM} COMMAND --help")
    print("\nTo begin with:")
    print(f"  {PROGRAM} serve main:app                        one app, on http://127.0.0.1:9080")
    print(f"  {PROGRAM} run --caddy --config Caddyfile        all apps of a Caddyfile, Caddy included")
    return 0


def _hint(name: str) -> str:
    import difflib

    if _names_an_app(name):
        return f" (did you mean `{PROGRAM} serve {name}`?)"
    if os.path.isfile(name):
        return f" (did you mean `{PROGRAM} run --config {name}`?)"
    close = _OF_OTHERS.get(name, []) or difflib.get_close_matches(name, COMMANDS, n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


def _load(name: str) -> Command:
    return cast(Command, import_module(f".{name.replace('-', '_')}", __package__))


def _parser(name: str, command: Command) -> Parser:
    parser = Parser(
        prog=f"{PROGRAM} {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    return parser
