"""Print a script that completes commands and options in your shell.

  caddysnake completion bash > /etc/bash_completion.d/caddysnake
  caddysnake completion zsh > "${fpath[1]}/_caddysnake"
  caddysnake completion fish > ~/.config/fish/completions/caddysnake.fish

A new shell has it.
"""

from __future__ import annotations

import argparse

from .manpage import read

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", choices=SHELLS, help="the shell to write for")


def main(args: argparse.Namespace) -> int:
    """Print; always 0."""
    print(read(f"caddysnake.{args.shell}"), end="")
    return 0
