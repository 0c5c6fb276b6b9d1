"""Write what is made of the code: of the command line's parsers scripts for shells, the manual page and a page of the
docs, and the docs' table of codes.

    python .ci/generate.py            write them
    python .ci/generate.py --check    only say which are out of date; 1 if any is

The scripts and the manual page are part of the package, so that no installation needs what makes them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from textwrap import dedent

import shtab
from argparse_manpage.manpage import Manpage

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from caddysnake.admin.errors import CODES as API  # noqa: E402
from caddysnake.channel.codes import ANSWERS, FAILURES, REPLACED, Code  # noqa: E402
from caddysnake.cli.completion import SHELLS  # noqa: E402
from caddysnake.cli.main import COMMANDS, PROGRAM, Parser  # noqa: E402
from caddysnake.cli.manpage import PAGE, SECTION  # noqa: E402
from caddysnake.http1.errors import BREACHES  # noqa: E402

FOLDER = ROOT / "caddysnake" / "cli" / "generated"
CODES = ROOT / "docs" / "codes.md"
COMMAND_LINE = ROOT / "docs" / "cli.md"
FILES = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
# Names of apps: of the daemon of the file that the line names, or of the one that is found without.
APPS = {
    "bash": "_caddysnake_apps",
    "zsh": "_caddysnake_apps",
    "fish": "(caddysnake status --names 2>/dev/null)",
    "preamble": {
        "bash": """\
_caddysnake_apps() {
  local name number config=()
  for ((number = 1; number < COMP_CWORD; number++)); do
    case "${COMP_WORDS[number]}" in
      -c|--config) config=(--config "${COMP_WORDS[number + 1]}") ;;
    esac
  done
  while IFS= read -r name; do
    [[ "$name" == "$1"* ]] && printf '%s\\n' "$name"
  done < <(caddysnake status --names "${config[@]}" 2>/dev/null)
}

# Bash takes words apart at colons, and names of apps hold some.
_caddysnake() {
  local number whole=() is_open= current=0
  for ((number = 0; number < ${#COMP_WORDS[@]}; number++)); do
    if [[ ${#whole[@]} -gt 1 && ($is_open || "${COMP_WORDS[number]}" == :*) ]]; then
      whole[-1]+="${COMP_WORDS[number]}"
    else
      whole+=("${COMP_WORDS[number]}")
    fi
    [[ "${COMP_WORDS[number]}" == *: ]] && is_open=1 || is_open=
    ((number == COMP_CWORD)) && current=$((${#whole[@]} - 1))
  done
  COMP_WORDS=("${whole[@]}") COMP_CWORD=$current
  _shtab_caddysnake
  number="${whole[current]}"
  [[ "$COMP_WORDBREAKS" == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${number%"${number##*:}"}"}")
}""",
        "zsh": """\
_caddysnake_apps() {
  local -a names
  names=(${(f)"$(caddysnake status --names 2>/dev/null)"})
  compadd -a names
}""",
    },
}
ABOUT = {
    "prog": PROGRAM,
    "project_name": PROGRAM,
    "description": "run Python web apps behind a stock Caddy",
    "manual_section": SECTION,
    "manual_title": "System administration",
    "url": "https://pypi.org/project/caddysnake-sidecar/",
}


def whole_parser() -> argparse.ArgumentParser:
    """All commands in one parser: for what describes the command line rather than reads one."""
    parser = Parser(
        prog=PROGRAM,
        description="Runs Python web apps behind a stock Caddy.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", dest="command")
    for name, summary in COMMANDS.items():
        command = import_module(f"caddysnake.cli.{name.replace('-', '_')}")
        inner = commands.add_parser(
            name,
            help=summary,
            description=command.__doc__,
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=10_000),  # who shows it breaks lines
            allow_abbrev=False,
        )
        command.add_arguments(inner)
    return parser


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


def completion(shell: str) -> str:
    whole = whole_parser()
    for parser in parsers(whole):
        for action in parser._actions:
            if isinstance(action.metavar, str) and action.metavar in FILES:
                action.complete = FILES[action.metavar]
            elif action.dest == "app" and action.metavar in ("APP", "APP|PID", "NAME"):
                action.complete = APPS
    return shtab.complete(whole, shell).replace("-F _shtab_caddysnake", "-F _caddysnake")


def manual_page() -> str:
    page = str(Manpage(whole_parser(), ABOUT, format="single-commands-section"))
    # Its first line holds the day on which it was made, and the day before no change.
    page = re.sub(r'^(\.TH \S+ "\d+") "[^"]*"', r'\1 ""', page, count=1)
    return re.sub(r"\n{2,}(?=\.)", "\n", page)  # a macro leaves its own room above: a blank line would be one more


def _table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|" + " --- |" * columns]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Each argument as it is written, with what it means."""
    for action in parser._actions:
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)) or action.help == argparse.SUPPRESS:
            continue
        value = ""
        if action.nargs != 0:
            choices = "|".join(map(str, action.choices)) if action.choices else ""
            name = action.metavar if isinstance(action.metavar, str) else choices or action.dest.upper()
            value = f"{name}…" if action.nargs in ("+", "*", argparse.REMAINDER) else name
        written = ", ".join(f"{flag} {value}".rstrip() for flag in action.option_strings) or value
        yield f"`{_cell(written)}`", _cell((action.help or "") % {**vars(action), "prog": parser.prog})


def _described(text: str) -> str:
    """A description, with its command lines in blocks of code."""
    parts: list[tuple[bool, list[str]]] = []
    for line in cleandoc(text).splitlines():
        is_code = line.startswith((" ", f"{PROGRAM} "))
        if not line:
            parts.append((False, []))
        elif parts and parts[-1][1] and parts[-1][0] == is_code:
            parts[-1][1].append(line)
        else:
            parts.append((is_code, [line]))
    blocks = ((code, "\n".join(map(str.rstrip, lines))) for code, lines in parts if lines)
    return "\n\n".join(f"```text\n{dedent(block)}\n```" if code else block for code, block in blocks)


def _command(name: str, parser: argparse.ArgumentParser, depth: int = 2) -> Iterator[str]:
    yield f"{'#' * depth} {name}"
    if parser.description:
        yield _described(parser.description)
    if rows := list(_arguments(parser)):
        yield _table("argument | meaning", rows)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner_name, inner in action.choices.items():
                yield from _command(f"{name} {inner_name}", inner, depth + 1)


def command_line_page() -> str:
    (commands,) = (each for each in whole_parser()._actions if isinstance(each, argparse._SubParsersAction))
    rows = ((f"[`{name}`](#{name})", _cell(about)) for name, about in COMMANDS.items())
    sections = "\n\n".join(part for name, each in commands.choices.items() for part in _command(name, each))
    return f"""# Command line

```text
{PROGRAM} COMMAND [ARGUMENTS]
```

{_table("command | does", rows)}

`{PROGRAM} COMMAND --help` prints what is on this page, which is made of the code (`make generated`). The exit status
is 0 for success, 1 for a command that failed, and 2 for a daemon that was forced to end.

Commands that talk to a daemon find it through its Caddyfile: `--config FILE`, or `./Caddyfile`, or what `serve` runs in
this folder. `--address` names its admin API instead. Where `--config` is, Caddy's `--adapter` is accepted and ignored.

## In your shell

[`completion`](#completion) prints a script that completes commands, options, files, and names of apps. For bash, as
root:

```console
# {PROGRAM} completion bash > /etc/bash_completion.d/{PROGRAM}
```

for yourself alone:

```console
$ mkdir -p ~/.local/share/bash-completion/completions
$ {PROGRAM} completion bash > ~/.local/share/bash-completion/completions/{PROGRAM}
```

The package `bash-completion` has to be there. For zsh, a folder of `fpath`, before `compinit` runs:

```console
$ {PROGRAM} completion zsh > "${{fpath[1]}}/_{PROGRAM}"
```

and for fish:

```console
$ {PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish
```

A new shell has it; write the script again after an upgrade of {PROGRAM}. In these three shells names of apps (`--app
NAME`, `status APP`) are completed too: the running daemon is asked for them, in bash that of the file that `--config`
names where the line has one.
[`manpage`](#manpage) writes the manual page.

{sections}
"""


def _codes(codes: dict[str, Code]) -> str:
    rows = ((f"`{name}`", str(each.status), each.about, each.remedy or "–") for name, each in codes.items())
    return _table("code | status | what happened | what to do", rows)


def codes_page() -> str:
    return f"""# Codes

Every cause has one name: in the field `caddysnake-code` of an answer that is not the app's, in the log (`code`), in
`/metrics`, in `caddysnake status`, on the live page and here. They are stable: alerts may rely on them.

This page is made of the code (`make generated`). [Troubleshooting](guides/troubleshooting.md) goes by symptoms.

## Why a worker ended, or an app did not start

In `status` and `/metrics` (`caddysnake_worker_restarts_total`, label `cause`); requests that nobody can answer for that
are told the same.

{_codes(FAILURES)}

## Why a healthy worker was replaced

{_table("cause | why", ((f"`{name}`", about) for name, about in REPLACED.items()))}

## What else a request is told

Those of 500 and more count as errors of the app. How often each was told, is `caddysnake_http_refusals_total`; requests
that were cut are in there as well.

{_codes(ANSWERS)}

## Requests that break a rule of HTTP

The status is 400, or 413, 414, 417, 426, 431, 501, 505 where one of those says more. They are the client's doing.

{_table("code | the request", ((f"`{name}`", about) for name, about in BREACHES.items()))}

## What a reload, and the admin API, may answer

{_table("code | status | what happened | what to do", (
    (f"`{name}`", str(each.status), each.about, each.remedy or "–") for name, each in API.items()
))}
"""


def main() -> int:
    only_checks = "--check" in sys.argv
    made = {FOLDER / f"{PROGRAM}.{shell}": completion(shell) for shell in SHELLS}
    made |= {FOLDER / PAGE: manual_page(), CODES: codes_page(), COMMAND_LINE: command_line_page()}
    stale = []
    for path, made_text in made.items():
        text = made_text.rstrip("\n") + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if not only_checks:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date: make generated' if only_checks else 'written'}")
    return int(bool(stale) and only_checks)


if __name__ == "__main__":
    sys.exit(main())
