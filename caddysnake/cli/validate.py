"""Check a Caddyfile: its language, what it says, and what it names on disk.

Nothing is started. Matchers and placeholders are compiled. Directories, virtual environments, modules, env files and
the folders of sockets are looked at as far as files tell; no code of an app is run, unless --import has each app
imported as its workers would. With --caddy Caddy is asked about its part (caddy validate). Prints every error with its
file and line, and exits with 1 when there is one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from ..caddyfile.errors import CaddyfileError
from ..config.check.commands import missing_commands, told_schedules
from ..config.check.sandbox import overlaps, sandboxes
from ..config.language.adapt import ConfigErrors
from ..config.plan.admin import admin_endpoint
from ..config.plan.fence import unwalled
from ..config.plan.isolation import shared
from ..config.plan.places import start_folder
from ..config.plan.plan import Plan
from ..daemon.supervisor.caddy.binary import find_caddy, refusal
from ..daemon.supervisor.desired import compose
from ..daemon.supervisor.document import CaddyPart
from ..doctor.service import runner_of
from ..matchers.table import Table
from .planning import missing_libraries, planned
from .reading import CommandFailed, add_config_arguments, print_warnings, source_of
from .trying import try_all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config_arguments(parser)
    parser.add_argument("--caddy", action="store_true", help="check it as run --caddy would read it, Caddy's part too")
    parser.add_argument(
        "--import", dest="imports", action="store_true", help="import each app once, as its workers would"
    )


def main(args: argparse.Namespace) -> int:
    """Validate; 0 when the file can be run."""
    with source_of(args.config) as source:
        config, plan, errors, part, tables = planned(source, with_caddy=args.caddy)
        errors += [*missing_libraries(plan, os.environ), *missing_commands(plan, os.environ)]
        print_warnings(config.warnings)
        try:
            admin_endpoint(config.options, source.file, os.environ, for_caddy=args.caddy)
        except CaddyfileError as exc:
            errors.append(exc)
        if errors:
            raise ConfigErrors(errors)
    if args.caddy and (why := _refused_by_caddy(part)) is not None:
        raise CommandFailed(why)
    if args.imports and not _imported(plan, tables):
        return 1
    print("Valid configuration")
    for line in told_schedules(plan, time.time()):
        print(line)
    runner = runner_of(source.file, None).who.uid  # who runs the service of this file, whoever asks
    together = [each for each in shared(plan, runner) if {*each.apps}.intersection(unwalled(plan))]
    for each in (*together, *sandboxes(plan), *overlaps(plan)):
        print(f"Note: {each}", file=sys.stderr)
    return 0


def _imported(plan: Plan, tables: Sequence[Table]) -> bool:
    """Whether each app could be imported; that is told of each."""
    desired = compose(plan, os.environ, tables, start_folder(os.environ))
    for spec in desired.templates.values():
        print(f"Note: {spec.name}: which app it is depends on the request, so it is not imported", file=sys.stderr)
    return try_all(desired)


def _refused_by_caddy(part: CaddyPart) -> str | None:
    """Why Caddy would not run its part of the file; None when it would, or there is none to ask."""
    binary = find_caddy(os.environ)
    if binary is None:
        print("Note: there is no caddy here to look at its part of the file", file=sys.stderr)
        return None
    try:
        return refusal(binary, part)
    except (OSError, subprocess.SubprocessError) as exc:
        return f"cannot ask {binary}: {exc}"
