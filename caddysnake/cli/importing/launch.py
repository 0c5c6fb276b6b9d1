"""How a server is started: its words, and what surrounds them."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Final

from ..reading import CommandFailed

_VARIABLE = re.compile(r"\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?::?-(?P<default>[^}]*))?\})")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_SHELLS: Final = ("sh", "bash", "dash", "ash")
_ACTIVATE = re.compile(r"(?P<venv>.+)/bin/activate")
_PREFIXES: Final = ("exec", "export", "env", "then", "else", "do", "{", "!")
_PASSED_OVER: Final = re.compile(
    r":|set|trap|echo|if|elif|fi|\[\[?|test|for|while|done|case|esac|exit|return|wait|umask|ulimit|shift|"
    r"until|local|readonly|declare|shopt|true|false|unset|printf|sleep|\}|\S+\(\)|function"
)
_SCRIPT: Final = r'"?\$(?:0|\{?BASH_SOURCE(?:\[0\])?(?::-\$0)?\}?)"?'
_OWN_FOLDER: Final = (
    (re.compile(r"\$\{0%/\*\}|\$PWD\b|\$\(\s*pwd\s*\)"), "."),
    (re.compile(rf"\$\(\s*(?:readlink -f|realpath) {_SCRIPT}\s*\)"), "$0"),
    (re.compile(rf"\$\(\s*dirname (?:-- )?{_SCRIPT}\s*\)"), "."),
    (re.compile(r"\$\(\s*cd (?:-- )?\"?(?P<to>[^\"()\s;&]+)\"?[^()]*\bpwd\b[^()]*\)"), r"\g<to>"),
)
"""How scripts find the folder that they are in, from the inside out."""
_CASE: Final = re.compile(r"(?m)(?:^|;;|\bin\b)[ \t]*\(?[\"'\w*|. ?\[\]$-]+\)(?!\))")
_SUBSTITUTION = re.compile(r"\$\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|`[^`]*`")
_REDIRECTION = re.compile(r"\d?[<>]{1,2}(?P<file>[^<>]*)")
_GLUE: Final = {ord(each): chr(0xE000 + number) for number, each in enumerate(" \t\n;&|\"'")}
_UNGLUE: Final = {ord(value): chr(key) for key, value in _GLUE.items()}
_DEFAULTS: Final = {"PORT": "8000", "WEB_CONCURRENCY": "auto"}
"""What stands for a variable that the place sets, where it is not set."""


class CannotImport(CommandFailed):
    """There is nothing to import."""


@dataclass
class Launch:
    """One command, and what it is started with."""

    words: list[str]
    file: str = ""
    """Where it was found, with its line."""
    beside: str = ""
    """The folder of that file, here; empty: the current one."""
    folder: str = ""
    """The folder that the command runs in, there; empty: where the daemon is started."""
    environ: dict[str, str] = field(default_factory=dict)
    from_files: dict[str, str] = field(default_factory=dict)
    """What of it stands in files that are lines of the block."""
    user: str = ""
    group: str = ""
    is_port_given: bool = False
    """The place sets ``PORT``."""
    lines: list[tuple[str, ...]] = field(default_factory=list)
    """Lines of the block that follow from the surroundings."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """What has no line, and why."""

    def read(self, path: str) -> tuple[str, str] | None:
        """The name and text of a file that the command names, if it can be seen from here: where it says, else beside
        the file that the command was found in. An image's folders are not this machine's.
        """
        for candidate in dict.fromkeys(
            (os.path.join(self.beside, self.folder, path), os.path.join(self.beside, os.path.basename(path)))
        ):
            try:
                with open(candidate, encoding="utf-8") as file:
                    return candidate, file.read(1_000_000)
            except (OSError, UnicodeDecodeError):
                continue
        return None


def expand(text: str, environ: dict[str, str]) -> str:
    """``text`` with a shell's variables: those that are known, the others as Caddyfiles have them."""

    def value(match: re.Match[str]) -> str:
        name = match["plain"] or match["name"]
        if name in environ:
            return environ[name]
        default = match["default"] or _DEFAULTS.get(name, "")
        return f"{{${name}:{default}}}" if default else f"{{${name}}}"

    return _VARIABLE.sub(value, text)


def expanded(words: list[str], environ: dict[str, str]) -> list[str]:
    """``words`` with their variables; one that is a variable alone may stand for several."""
    found: list[str] = []
    for each in words:
        whole = _VARIABLE.fullmatch(each)
        known = environ.get(whole["plain"] or "") if whole is not None else None
        found += [expand(each, environ)] if known is None else shlex.split(known)
    return found


def shell(text: str, start: Launch) -> list[Launch]:
    """The commands of a shell's line or script, each with the folder and environment that it has there. Raises
    ``CannotImport``: a quotation does not end.
    """
    found: list[Launch] = []
    here = start
    for pattern, value in _OWN_FOLDER:
        text = pattern.sub(value, text)
    if re.search(r"\besac\b", text):
        text = _CASE.sub("\n", text)
    for words in _split(text, start.file):
        here = _started(words, here)
        if not words or _PASSED_OVER.fullmatch(words[0]):
            continue
        if words[0] in ("source", "."):
            if len(words) > 1 and (activated := _ACTIVATE.fullmatch(expand(words[1], here.environ))):
                venv = posixpath.normpath(posixpath.join(here.folder, activated["venv"]))
                here = replace(here, environ={**here.environ, "VIRTUAL_ENV": venv})
            continue
        if words[0] == "cd" and len(words) == 2:
            here = replace(here, folder=posixpath.normpath(posixpath.join(here.folder, expand(words[1], here.environ))))
            continue
        found.append(replace(deepcopy(here), words=expanded(words, here.environ)))
    return found


def _started(words: list[str], here: Launch) -> Launch:
    """Take what stands in front of a command off ``words``; with the variables that it sets."""
    while words and (posixpath.basename(words[0]) in _PREFIXES or _ASSIGNMENT.match(words[0])):
        first = words.pop(0)
        if _ASSIGNMENT.match(first):
            name, _, value = first.partition("=")
            here = replace(here, environ={**here.environ, name: expand(value, here.environ)})
    return here


def commands(launch: Launch) -> list[Launch]:
    """What ``launch`` comes to, with the shells that it starts for that gone through. Raises ``CannotImport``."""
    words = list(launch.words)
    launch = replace(_started(words, launch), words=words)
    for at, (name, option) in enumerate(zip(launch.words, launch.words[1:], strict=False)):
        if posixpath.basename(name) in _SHELLS and re.fullmatch(r"-[a-z]*c", option) and at + 2 < len(launch.words):
            before = launch.words[:at]
            inner = shell(launch.words[at + 2], launch)
            found = [each for one in inner for each in commands(one)]
            return [*found[:-1], *(replace(each, words=[*before, *each.words]) for each in found[-1:])]
    return [launch]


def unclosed(where: str, exc: ValueError) -> CannotImport:
    """What ``shlex`` complains of."""
    return CannotImport(f"{where}: {exc} (a quotation mark is missing)".replace("No c", "no c"))


def _split(text: str, file: str) -> list[list[str]]:
    glued = _SUBSTITUTION.sub(lambda match: match[0].translate(_GLUE), text.replace("\\\n", " "))
    lexer = shlex.shlex(glued, posix=True, punctuation_chars=";&|\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    is_redirected = False
    try:
        for token in lexer:
            if is_redirected:
                is_redirected = token == "&"
            elif match := _REDIRECTION.fullmatch(token):
                is_redirected = not match["file"]
            elif token and set(token) <= set(";&|\n"):
                commands.append([])
            elif token.startswith("#") and not commands[-1]:
                commands[-1].append("#")
            elif commands[-1][:1] != ["#"]:
                commands[-1].append(token.translate(_UNGLUE))
    except ValueError as exc:
        raise unclosed(file or "the command", exc) from None
    return [words for words in commands if words and words[0] != "#"]
