"""What the file system can refute before anything starts.

Each check looks and never changes anything; each error points at the line of the Caddyfile that asked for it and says
what to do. None of them is a promise: the file system may change in the next moment, and an import may fail all the
same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import cache

from ...caddyfile.errors import CaddyfileError, nearest
from ..language.models import Position
from ..plan import accounts
from ..plan.accounts import AccountError
from ..plan.isolation import Residents, residents
from ..plan.plan import AppSpec, Plan, PlannedListener
from ..plan.search import (
    OLDEST_PYTHON,
    ROOT_HINT,
    Installation,
    Verdict,
    find_module,
    foreign_hand,
    installation,
    is_standard,
    modules_in,
    names_near,
)
from .sandbox import kernel_errors, path_errors


def check_apps(plan: Plan) -> dict[int, list[CaddyfileError]]:
    """What keeps single apps of *plan* from being started, by their indices; those with nothing wrong are left out."""
    look = cache(installation)  # most apps have one Python in common
    housed = residents(plan) if any(app.block.sandbox for app in plan.apps) else None
    found = {number: list(check_app(app, look, housed)) for number, app in enumerate(plan.apps)}
    for number, error in path_errors(plan):
        found[number] += [] if found[number] else [error]
    return {number: errors for number, errors in found.items() if errors}


def check_app(
    app: AppSpec, look: Callable[[str], Installation] = installation, housed: Residents | None = None
) -> Iterator[CaddyfileError]:
    """What is wrong with one app, or template. ``look`` says what there is of a Python, ``housed`` who runs as whom."""
    yield from app.problems
    most = app.block.settings.max_in_flight
    if most is not None and most < app.workers:
        message = f"max_in_flight {most} leaves some of {app.workers} workers without a request"
        yield app.block.at("max_in_flight").error(message, f"write {app.workers} or more, or fewer workers")
    if app.block.canary is not None and app.strategy == "stop_first":
        hint = "take one of them away: with stop_first the new build starts when the old has ended"
        yield app.block.at("canary").error("canary compares two builds that run at the same time", hint)
    if app.block.keep_previous_s and app.strategy != "parallel":
        hint = "take it away, or write reload_strategy parallel into this block"
        yield app.block.at("keep_previous").error(f"nothing is left to keep with {app.strategy}", hint)
    yield from kernel_errors(app, housed)
    if app.block.placeholders:
        if not any("{" in name for name in (app.block.user, app.block.group) if name is not None):
            yield from _account_errors(app)
        return
    folder_error = _directory_error(app.working_dir, "working_dir", app.block.at("working_dir"))
    if folder_error is not None:
        yield folder_error
    python_error = _venv_error(app) or _python_error(app, look)
    if python_error is not None:
        yield python_error
    if folder_error is None and python_error is None:
        yield from _module_errors(app, look)
    yield from _account_errors(app)


def _account_errors(app: AppSpec) -> Iterator[CaddyfileError]:
    known = True
    user, group = app.block.user, app.block.group
    for what, name, number in (("user", user, accounts.user_id), ("group", group, accounts.group_id)):
        try:
            number(name) if name is not None else None
        except AccountError as exc:
            known = False
            yield app.block.at(what).error(str(exc), exc.hint)
    if not known:
        return
    try:
        account = accounts.resolve(user, group)
    except AccountError as exc:
        yield app.block.at("user", "group").error(str(exc), exc.hint)
        return
    uid = os.geteuid() if account is None else account.uid
    if uid == 0 and (found := foreign_hand(app.python)) is not None:
        yield app.block.at("user", "venv", "python_path").error(f"root must not run {app.python}: {found}", ROOT_HINT)
    niceness = app.block.limits.niceness if app.block.limits is not None else None
    if niceness is not None and niceness < 0 and uid != 0:
        message = f"niceness {niceness}: only root may be preferred to others, and this app is not run as root"
        yield app.block.at("limits").error(message, "write 0 or more")


def _directory_error(path: str, what: str, position: Position) -> CaddyfileError | None:
    if not os.path.isdir(path):
        if os.path.lexists(path):
            return position.error(f"{what} {path} is not a directory", "name the directory itself")
        parent = os.path.dirname(path)
        folders = [name for name in names_near(parent) if os.path.isdir(os.path.join(parent, name))]
        near = nearest(os.path.basename(path), folders)
        near = "nobody expands ~ in a Caddyfile: write {$HOME}" if "/~" in path else near
        return position.error(f"{what} {path} does not exist", near or "create it, or correct the path")
    if not os.access(path, os.R_OK | os.X_OK):
        return position.error(f"{what} {path} may not be read", "give the daemon's user the right to read it")
    return None


def _venv_error(app: AppSpec) -> CaddyfileError | None:
    if app.venv is None:
        return None
    position = app.block.at("venv")
    if (error := _directory_error(app.venv, "venv", position)) is not None:
        if "/bin/python" in app.venv:
            error.hint = f"name its folder: venv {app.venv.partition('/bin/python')[0]}"
        elif "/~" not in app.venv:
            error.hint = f"make it with: python3 -m venv {app.venv}"
        return error
    if app.block.python_path is not None or os.path.exists(app.python):
        return None
    if os.path.islink(app.python):
        leads = f"{app.python} leads to {os.readlink(app.python)}"
        message = f"the Python of venv {app.venv} is gone, or this user may not get to it: {leads}"
        return position.error(message, f"make it anew with: python3 -m venv --clear {app.venv}")
    message = f"venv {app.venv} has no Python: neither bin/python3 nor bin/python is there"
    return position.error(message, f"make it with: python3 -m venv {app.venv}")


def _python_error(app: AppSpec, look: Callable[[str], Installation]) -> CaddyfileError | None:
    position = app.block.at("python_path", "venv")
    if not os.path.exists(app.python):
        return position.error(f"interpreter {app.python} does not exist", "correct python_path")
    if not os.path.isfile(app.python) or not os.access(app.python, os.X_OK):
        return position.error(f"interpreter {app.python} is not a program that may be run", "correct python_path")
    version = look(app.python).version
    if len(version) >= 2 and version[:2] < OLDEST_PYTHON:
        shown, oldest = ".".join(map(str, version)), ".".join(map(str, OLDEST_PYTHON))
        message = f"interpreter {app.python} is Python {shown}, and apps need {oldest} or later"
        return position.error(message, "make the venv with a newer Python")
    return None


def _module_errors(app: AppSpec, look: Callable[[str], Installation]) -> Iterator[CaddyfileError]:
    position = app.block.at("module_wsgi", "module_asgi")
    python = look(app.python)
    added = [os.path.join(app.working_dir, entry) for entry in app.environ.get("PYTHONPATH", "").split(":") if entry]
    folders = (app.working_dir, *added, *python.folders)
    for name in (app.module, *app.block.preload):
        # main.py is a file, and no module of that name can be in it.
        is_file = name.endswith(".py") and os.path.isfile(os.path.join(app.working_dir, name))
        if is_standard(name) or (find_module(name, folders) is not Verdict.MISSING and not is_file):
            continue
        first = name.partition(".")[0]
        if not python.complete and find_module(first, folders[:1]) is Verdict.MISSING:
            continue  # it may come from a place that the files do not tell
        where = position if name == app.module else app.block.at("preload")
        message = f"no module named {name} in {app.working_dir}, nor in what is installed for {app.python}"
        yield where.error(message, _module_hint(name, app))


def _module_hint(name: str, app: AppSpec) -> str:
    if name.endswith(".py"):
        return f"write {name.removesuffix('.py')}:{app.variable}, without .py"
    if find_module(name, (os.path.join(app.working_dir, "src"),)) is not Verdict.MISSING:
        return "it is in src: install it into the environment, or write working_dir src (serve --working-dir src)"
    head, _, rest = name.rpartition(".")
    folder = os.path.join(app.working_dir, *head.split(".")) if head else app.working_dir
    otherwise = "correct the name, or set working_dir to the folder it is in, or venv to where it is installed"
    return nearest(rest, modules_in(folder)) or otherwise


# Sockets


def check_sockets(plan: Plan) -> Iterator[CaddyfileError]:
    """What keeps sockets of *plan* from being opened."""
    seen: dict[str, PlannedListener] = {}
    for listener in plan.listeners:
        place = os.path.realpath(listener.path) if listener.path else str(listener).partition("/")[2]
        first = seen.setdefault(place, listener)
        if first is not listener:
            message = f"{listener} is listened on twice, first on line {first.position.line}"
            yield listener.position.error(message, "give each a socket of its own")
        elif listener.path:
            yield from _check_unix(listener)


def _check_unix(listener: PlannedListener) -> Iterator[CaddyfileError]:
    yield from _check_folder(listener)
    try:
        mode = os.lstat(listener.path).st_mode
    except OSError:
        pass
    else:
        if not stat.S_ISSOCK(mode):
            message = f"{listener.path} exists and is not a socket"
            yield listener.position.error(message, "take it away, or choose another path")
    yield from _check_owners(listener)


def _check_owners(listener: PlannedListener) -> Iterator[CaddyfileError]:
    owner, group, own = listener.socket.owner, listener.socket.group, os.geteuid()
    not_owner = f"only root may make {owner} the owner of {listener}", "set the group instead, or start as root"
    not_member = (
        f"the daemon's user is not in the group {group}, so it cannot give {listener} to it",
        f"add the user to it: usermod -aG {group} USER",
    )
    for name, look_up, ours, why_not in (
        (owner, accounts.user_id, {own}, not_owner),
        (group, accounts.group_id, {os.getegid(), *os.getgroups()}, not_member),
    ):
        try:
            if name is not None and look_up(name) not in ours and own != 0:
                yield listener.position.error(*why_not)
        except AccountError as exc:
            yield listener.position.error(f"{exc}, which was to own {listener}", exc.hint)


def _check_folder(listener: PlannedListener) -> Iterator[CaddyfileError]:
    folder = os.path.dirname(listener.path)
    if listener.own and not os.path.lexists(folder):
        # The daemon makes this one itself, in the first folder above it that is there.
        folder = os.path.dirname(folder)
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
    hint = f"create it: mkdir -p {folder}"
    if not os.path.isdir(folder):
        what = "is not a directory" if os.path.lexists(folder) else "does not exist"
        yield listener.position.error(f"the folder {folder} for {listener} {what}", hint)
    elif not os.access(folder, os.W_OK | os.X_OK):
        message = f"the folder {folder} for {listener} is not writable for the daemon's user"
        yield listener.position.error(message, "change its owner or mode, or choose another folder")


