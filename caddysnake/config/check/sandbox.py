"""What this kernel holds of an app's sandbox, and what it must not be asked for: never silently less than was asked.

The first functions are pure, for any kernel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import permutations, product
from typing import NamedTuple

from ... import files
from ...caddyfile.errors import CaddyfileError
from ...sandbox import landlock, seccomp, walls
from ...sandbox.walls import Walls
from ..language.models import Sandbox
from ..plan import accounts
from ..plan.accounts import AccountError
from ..plan.fence import Fence, FenceError, Sites, Wish, closed_places, common_fence, fence_of, unwalled, walls_of
from ..plan.isolation import Residents, residents, shared
from ..plan.places import start_folder
from ..plan.plan import AppSpec, Plan

_UNIX_SOCKET = re.compile(
    r"^unix:|^[\w+]*\+(?:socket|unix)://|[?&](?:host|unix_socket|unix_sock)=(?:/|%2F)|^/\S+\.sock$", re.IGNORECASE
)
"""In a variable: a database's address that leads to one."""
_AS_ROOT = "an app that runs as root cannot be kept in a sandbox"
_GIVE_USER = "give it a user of its own: user NAME in its block; or start the daemon as an ordinary user"


class Held(NamedTuple):
    """In one word, and in a sentence."""

    word: str
    sentence: str


NOT_WALLED = Held("off", "")
REHEARSED = Held("audit", "not walled: one worker of each build is watched, and the log says what it would need")


def refusals(box: Sandbox, abi: int, *, is_root: bool, is_shared: bool) -> Iterator[tuple[str, str, str]]:
    """Why Landlock ``abi`` cannot hold ``box``. ``is_shared``: others, or the daemon, run as the app's user."""
    if is_root:
        yield "sandbox", _AS_ROOT, _GIVE_USER
    if is_shared and abi < landlock.SCOPES_ABI:
        message = f"Landlock {abi} of this kernel does not keep processes of one user from signalling each other"
        yield "sandbox", message, "run Linux 6.12 or later, or give each app a user of its own"
    if abi < landlock.PORTS_ABI and (box.connect is not None or box.listen):
        message = f"Landlock {abi} of this kernel knows no ports"
        yield "sandbox", message, "run Linux 6.7 or later, or take the lines connect and listen away"


def held(box: Walls | None, abi: int, *, is_shared: bool, unwalled: Sequence[str] = ()) -> Held:
    """What a sandbox comes to. ``unwalled``: apps of the same user that are in none."""
    if box is None:
        return NOT_WALLED
    left = []
    if is_shared:
        left += ["sees that files exist", "may change modes, owners and times of its user's files"]
        left += ["connects to unix sockets of its user"] if box.has_unix else []
    elif abi < landlock.TRUNCATE_ABI:
        left.append("may truncate what its user may")
    left.append("connects to any port" if box.connect is None else "sends UDP")
    if box.listen == () and abi < landlock.PORTS_ABI and box.has_unix:
        left.append("cannot listen, not on unix sockets either")
    lead = "apart from others of its user" if is_shared else "a second wall, around its user"
    if unwalled:
        left.insert(0, f"open to {', '.join(unwalled)} of its user, in no sandbox")
    return Held("walled", f"{lead}; {', '.join(left)}")


def is_shared(spec: AppSpec, housed: Residents) -> bool:
    """Whether the daemon, or other apps, run as the user of *spec*, as far as no request decides that."""
    try:
        account = accounts.resolve(spec.block.user, spec.block.group)
    except AccountError:
        return False  # a request decides, or the checks say so
    return account is None or not housed.is_alone(account.uid, spec.name)


def kernel_errors(app: AppSpec, housed: Residents | None = None) -> Iterator[CaddyfileError]:
    """What keeps the sandbox of *app* from being put up on this machine, be its paths as they may."""
    box = app.block.sandbox
    if box is None:
        return
    position = app.block.at("sandbox")
    if box.mode == "audit":
        if seccomp.machine() is None:
            yield position.error(f"sandbox: {walls.why_not()}", "take sandbox audit away")
        return
    if why := walls.why_not():
        hint = "take sandbox away, or run it where it can be held; with less than it says it is not started"
        yield position.error(f"sandbox: {why}", hint)
        return
    try:
        is_root = (os.geteuid() if app.block.user is None else accounts.user_id(app.block.user)) == 0
    except AccountError:  # a request decides, who gets nobody but ordinary users; or the checks say so
        is_root = False
    is_one_of_many = housed is not None and is_shared(app, housed)
    for at, message, hint in refusals(box, landlock.abi(), is_root=is_root, is_shared=is_one_of_many):
        yield app.block.at(at).error(f"sandbox: {message}", hint)


def path_errors(plan: Plan) -> Iterator[tuple[int, CaddyfileError]]:
    """What is wrong with the paths of sandboxes, by the number of the app."""
    closed, housed = closed_places(plan, os.environ), residents(plan)
    for number, app in enumerate(plan.apps):
        try:
            if app.dynamic:
                fence = common_fence(app, closed, os.environ, start_folder(os.environ))
            else:
                fence = fence_of(app, closed, isolated=not is_shared(app, housed))
            if fence is not None:
                walls_of(fence, Sites(app.python, (), ""))
                cache = app.block.cache
                if cache is not None and not fence.walls.has_unix and (cache.url or "").startswith("unix:"):
                    hint = "write `unix any` in its block, or a store elsewhere: cache redis://HOST"
                    why = "the store of `cache` is reached by a unix socket, and it may have none"
                    raise FenceError("cache", why, hint)
        except FenceError as exc:
            yield number, app.block.at(exc.at, "sandbox").error(f"sandbox: {exc}", exc.hint)


def admin_errors(plan: Plan, default: str = "") -> Iterator[CaddyfileError]:
    """An app in a sandbox reaches the admin API of the Caddy that reads this file: that asks nobody who he is.

    ``default``: where that Caddy listens although no line that could be taken away says so.
    """
    admin = plan.options.admin
    address = default if admin is None or admin.disabled else (admin.listen or "").partition("|")[0]
    hint = "take the line away: Caddy then gets a socket that no app reaches; or name its ports with `connect`"
    if admin is None:
        hint = "write the global options into this file, not an imported one; or name its ports with `connect`"
    for app, fence, is_one_of_many in _fences(plan) if address else ():
        if fence.is_rehearsed:
            continue
        connect = fence.walls.connect
        if address.startswith("unix/"):
            is_reached = fence.walls.has_unix and is_one_of_many
        else:
            is_reached = connect is None or address.rpartition(":")[2] in map(str, connect)
        if is_reached:
            message = f"admin: {app.name} is in a sandbox, and would reach Caddy's admin API at {address}"
            yield (app.block.at("sandbox") if admin is None else plan.options.at("admin")).error(message, hint)


def _fences(plan: Plan) -> Iterator[tuple[AppSpec, Fence, bool]]:
    """Those of the apps that have one, and whether others run as the app's user."""
    housed = residents(plan)
    for app in plan.apps:
        is_one_of_many = is_shared(app, housed)
        fence = fence_of(app, (), isolated=not is_one_of_many)
        if fence is not None:
            yield app, fence, is_one_of_many


def sandboxes(plan: Plan) -> Sequence[str]:
    """What the sandbox of each app in one comes to here."""
    found = []
    together = {name: each.apps for each in shared(plan) for name in each.apps}
    without = unwalled(plan)
    for app, fence, is_one_of_many in _fences(plan):
        if fence.is_rehearsed:
            found.append(f"{app.name}: {REHEARSED.word}: {REHEARSED.sentence}")
        else:
            others = [name for name in together.get(app.name, ()) if name in without]
            word, sentence = held(fence.walls, landlock.abi(), is_shared=is_one_of_many, unwalled=others)
            found.append(f"{app.name}: {word}: {sentence}")
            if app.block.workers_runtime == "thread":
                found.append(f"{app.name}: its threads have a process of their own: no two sandboxes have equal rules")
            if not fence.walls.has_unix:
                found += [
                    f"{app.name}: {name} names a unix socket, and its sandbox lets it have none: write `unix any`"
                    for name, value in app.environ.items()
                    if _UNIX_SOCKET.search(value)
                ]
    return found


def overlaps(plan: Plan) -> Sequence[str]:
    """Sandboxes of one user of which one reaches what is another's."""
    fences = [
        (app, fence)
        for app, fence, is_one_of_many in _fences(plan)
        if is_one_of_many and not app.dynamic and not fence.is_rehearsed
    ]
    told = []
    for (app, fence), (other, theirs) in permutations(fences, 2):
        if app.block.user == other.block.user:
            for wish, their in product(fence.wishes, theirs.wishes):
                if met := _met(wish, their):
                    may = "read" if wish.how == "read" else "read and write"
                    told.append(f"the sandbox of {app.name} may {may} {wish.path}, {met.format(other.name)}")
    return list(dict.fromkeys(told))


def _met(wish: Wish, their: Wish) -> str:
    """How ``wish`` reaches ``their``, another app's."""
    mine, others = os.path.realpath(wish.path), os.path.realpath(their.path)
    if files.is_within(others, mine) and (their.at == "working_dir" or their.how == "write"):
        return "in which {} is" if their.at == "working_dir" else "in which {} writes"
    if wish.how == "write" and files.is_within(mine, others):
        return f"which {{}} may {their.how}"
    return ""
