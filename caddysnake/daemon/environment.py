"""What of the daemon's environment an app and its interpreter see. Pure.

An allow list: the daemon's own secrets, and what systemd tells the daemon alone (NOTIFY_SOCKET, LISTEN_FDS,
WATCHDOG_USEC …), do not leak into every app. ``pass_env`` adds names, or patterns such as ``DJANGO_*``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

ALLOWED = (
    "PATH",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TMPDIR",
    "USER",
    "LOGNAME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)
NEVER = ("NOTIFY_SOCKET", "LISTEN_*", "WATCHDOG_*", "MAINPID", "INVOCATION_ID", "JOURNAL_STREAM")

_FOR_INTERPRETER = ("PYTHON*", "MALLOC_*")
# The first is applied in the worker, the second is for terminals.
_NOT_FOR_INTERPRETER = ("PYTHONPATH", "PYTHONSTARTUP")


def for_app(daemon: Mapping[str, str], pass_env: Iterable[str], own: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a worker: what is allowed or passed of the daemon's, then the app's own."""
    patterns = (*ALLOWED, *pass_env)
    passed = {
        name: value for name, value in daemon.items() if _any(name, patterns) and not _any(name, NEVER)
    }
    return {**passed, **own}


def for_interpreter(app: Mapping[str, str]) -> dict[str, str]:
    """What of an app's environment its spawner is started with: what an interpreter only reads when it starts.

    Part of what decides whether two apps may share a spawner; holds nothing secret.
    """
    base = {name: value for name, value in app.items() if _any(name, ("PATH", "HOME", "LANG", "LC_*", "TZ", "TMPDIR"))}
    special = {
        name: value
        for name, value in app.items()
        if _any(name, _FOR_INTERPRETER) and name not in _NOT_FOR_INTERPRETER
    }
    return {**base, **special}


def not_passed(daemon: Mapping[str, str], app: Mapping[str, str], text: str) -> list[str]:
    """Names in the daemon's environment, but not in the app's, that ``text`` (a traceback) mentions in quotes."""
    return [name for name in daemon if name not in app and (f"'{name}'" in text or f'"{name}"' in text)]


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
