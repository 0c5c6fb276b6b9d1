"""Print a script that completes commands and options in your shell.

  caddysnake completion bash > /etc/bash_completion.d/caddysnake
  caddysnake completion zsh > "${fpath[1]}/_caddysnake"
  caddysnake completion fish > ~/.config/fish/completions/caddysnake.fish
  caddysnake completion powershell >> $PROFILE

A new shell has it.
"""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", choices=SHELLS, help="the shell to write for")


def main(args: argparse.Namespace) -> int:
    """Print; always 0."""
    import shtab

    from .main import whole_parser

    kinds = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
    parser = whole_parser()
    for inner in _parsers(parser):
        for action in inner._actions:
            if isinstance(action.metavar, str) and action.metavar in kinds:
                action.complete = kinds[action.metavar]  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return 0


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found += _parsers(inner)
    return found
