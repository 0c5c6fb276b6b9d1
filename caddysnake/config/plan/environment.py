"""The whole environment of a worker: what it inherits, what its block says, nothing else."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import Final

from ..language.variables import may_be_set
from .accounts import Account
from .plan import AppSpec

_PROXIES: Final = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")

INHERITED: Final = (
    *("PATH", "HOME", "LANG", "LC_*", "TZ", "USER", "LOGNAME", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *_PROXIES,
    *(name.upper() for name in _PROXIES),
)
"""What every worker gets from the daemon. The daemon's other variables may be its secrets, or be about itself only
(``NOTIFY_SOCKET``, ``LISTEN_FDS``, ``WATCHDOG_USEC``)."""

_SERVICE_MANAGER: Final = re.compile(
    r"NOTIFY_SOCKET|LISTEN_.*|WATCHDOG_.*|INVOCATION_ID|JOURNAL_STREAM|CREDENTIALS_DIRECTORY"
)
_ONLY_BY_NAME: Final = re.compile(f"TMPDIR|PYDANTIC_DISABLE_PLUGINS|{_SERVICE_MANAGER.pattern}")
"""What a pattern of ``pass_env`` does not bring in."""


def without_service_manager(environ: Mapping[str, str]) -> dict[str, str]:
    """*environ* without what a service manager told this process about itself only."""
    return {name: value for name, value in environ.items() if not _SERVICE_MANAGER.fullmatch(name)}


def worker_environ(app: AppSpec, daemon: Mapping[str, str], account: Account | None = None) -> dict[str, str]:
    """The environment of the workers of *app*, from *daemon*'s own and from the block.

    With an *account* of its own it gets that one's ``HOME``, ``USER`` and ``LOGNAME`` instead of the daemon's. It has a
    ``TMPDIR`` only if one is passed or set; else one is made. ``pass_env`` names what else comes from the daemon; a
    pattern never brings in what an app may not be given, nor what the service manager told the daemon.
    """
    passed = app.block.pass_env
    patterns = re.compile("|".join(fnmatch.translate(pattern) for pattern in (*INHERITED, *passed)))
    environ = {
        name: value
        for name, value in daemon.items()
        if patterns.match(name) and may_be_set(name) and (name in passed or not _ONLY_BY_NAME.fullmatch(name))
    }
    if account is not None:
        environ |= {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}
    return environ | app.environ
