"""What a worker, or a relay, must know, as one sealed memfd of JSON: the payload of ``Configure``.

Settings and environment never pass through a fork server: the next tenant is forked from its memory.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from typing import Any, NamedTuple, TypeVar

APPS = ("app", "application")
FACTORIES = ("create_app", "make_app", "get_app", "get_application")
"""What an app is called where nobody says it, and what is called without arguments to make one."""
WSGI_WEBSOCKETS = 256
"""Each holds a thread."""
_LIMIT = 8 * 1024 * 1024


class Settings(NamedTuple):
    """Everything one worker needs. Durations are seconds, sizes are bytes; None means no limit."""

    app: str
    """The app's name in logs, such as ``blog:app``."""
    interface: str
    """``asgi`` or ``wsgi``; ``host``: the process of a thread host, which runs no app until it is told to."""
    module: str
    variable: str
    """An attribute path, or a factory: ``app``, ``site.app``, ``make_app()``."""
    working_dir: str
    environ: dict[str, str]
    """The whole environment of the worker, not an addition."""
    worker_index: int = 0
    """This worker's place in its pool, from 0."""
    workers: int = 1
    threads: int = 8
    """Threads that run the app (WSGI)."""
    loop: str = "uvloop"
    """``uvloop`` or ``asyncio`` (ASGI)."""
    lifespan: str = "auto"
    """``auto``, ``on`` or ``off`` (ASGI)."""
    sendfile: bool = False
    """Offer ``http.response.pathsend`` (ASGI)."""
    development: bool = False
    """Show tracebacks to the browser."""
    build: str = ""
    """In development: another word for each start of the app's code."""
    max_head_bytes: int = 1_114_112
    """Request line and header section together. Debian's Caddy lets 1 MiB and its own additions through."""
    max_target_bytes: int = 65_536
    max_header_count: int = 256
    max_body_bytes: int | None = None
    request_timeout_s: float | None = None
    """From the end of a head to the end of the response."""
    app_metrics: bool = True
    """What the app counts with prometheus-client is told in /metrics."""
    metrics_dir: str = ""
    """Where its processes count; empty: they do not."""
    marks_traces: bool = False
    """Lines that are printed while a request of a trace is answered get its mark."""
    slow_request_s: float | None = None
    """Requests that take longer are told of."""
    head_timeout_s: float = 60.0
    """From the first byte of a head to its end."""
    body_timeout_s: float = 120.0
    """Without a byte of a body that the app, or the drain of an unread body, waits for."""
    write_timeout_s: float = 120.0
    """Without a byte taken by a reader of a response."""
    websocket_keep_s: float = 0.0
    """How long open WebSockets may stay after the first ``Drain``. A second one ends that."""
    max_in_flight: int | None = None
    """Requests that are answered at a time: in a block by all workers of the app, then by this one."""
    max_waiting: int = 0
    """Further ones that may wait."""
    max_websockets: int | None = None
    """How many may be open in this worker. None: as many as ``WSGI_WEBSOCKETS``, or without a bound (ASGI)."""
    websocket_max_message_bytes: int = 16 * 1024 * 1024
    websocket_ping_interval_s: float = 20.0
    """0: nobody is asked for a sign of life."""
    websocket_ping_timeout_s: float = 20.0
    limits: dict[str, int] | None = None
    """What its process may use, by the names of ``worker.process.limits``."""
    root_path: str = ""
    """What Caddy has taken off the path of every request: the app's SCRIPT_NAME or root_path. Decoded."""
    health_path: str = ""
    """A path that is answered in front of the app; none when empty."""
    has_affinity: bool = False
    """Each client comes back to the same worker."""
    slow_at: float = 0.0
    """From then on (``time.monotonic()``, one clock for all processes) a start that still goes on is told."""
    finds_app: bool = False
    """Somebody has typed it: a factory is called without parentheses, and no variable is one to be looked for."""
    access_log: dict[str, Any] | None = None
    """How its requests are logged; None: not at all. What it says is the log process's to know."""
    sandbox: dict[str, Any] | None = None
    """Walls around its process, which it puts up itself before the app is imported: ``sandbox.Walls``, as a dict."""
    rehearses: bool = False
    """It is watched instead, and tells what it would have been denied."""
    store: list[str] | None = None
    """Variables that hold the address of its store, which is in its private folder; None: there is none."""
    shares_process: bool = False
    """It is threads of a thread host: what concerns the whole process is not its to do."""


class RelaySettings(NamedTuple):
    """Everything one relay needs. Durations are seconds, sizes are bytes; None means no limit."""

    listeners: list[Any]
    """Routing tables, as JSON, by the number that ``Take`` carries above ``TAKE_LISTENER_SHIFT``. What a table holds is
    between whoever makes it and the relay's router."""
    development: bool = False
    """Show the browser what is wrong with a worker's answer. What ``Refused`` says is shown in any case."""
    max_head_bytes: int = 1_114_112
    max_target_bytes: int = 65_536
    max_header_count: int = 256
    max_body_bytes: int | None = None
    """For all apps; each app's own limit is its worker's."""
    head_timeout_s: float = 60.0
    write_timeout_s: float = 120.0
    max_needs: int = 8192
    """Requests that wait for a link, all apps together."""
    max_idle_links: int = 256
    """Links kept for the next request, per app."""
    max_idle_links_total: int = 4096
    link_idle_s: float = 60.0
    """How long a link is kept without a request."""
    tunnel_keep_s: float = 3600.0
    """How long WebSockets are forwarded after the first ``Drain``: their workers end them. A second one ends that."""
    affinity: dict[str, list[str]] | None = None
    """By the number of an app's block: ``cookie`` or ``header``, its name, and whose clients they are."""
    affinity_key: str = ""
    """Signs the cookies; in hexadecimal."""
    affinity_epoch: int = 0
    """Since when the daemon counts its workers."""
    app: str = "relay"
    """Its name in logs."""
    interface: str = "relay"
    threads: int = 0
    worker_index: int = 0
    """Its place among the relays, from 0."""
    workers: int = 1


def sealed(name: str, content: bytes) -> int:
    """Return a sealed memfd that holds ``content``, close-on-exec; it is the caller's. Raises ``OSError``."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def seal(settings: Settings | RelaySettings) -> int:
    """A sealed memfd holding ``settings``; the descriptor is the caller's. Raises ``OSError``."""
    return sealed("caddysnake-settings", json.dumps(settings._asdict()).encode())


_Kind = TypeVar("_Kind", Settings, RelaySettings)


def unseal(fd: int) -> Settings:
    """The settings in ``fd``, the caller's, without unknown names. Raises ``ValueError``: none, or over 8 MiB."""
    found = _unseal(fd, Settings)
    environ = {native(name): native(value) for name, value in found.environ.items()}
    return found._replace(working_dir=native(found.working_dir), environ=environ)


def native(text: str) -> str:
    """``text``, written as UTF-8, as an interpreter has it whose locale has another encoding (PEP 383)."""
    if sys.getfilesystemencoding() == "utf-8":
        return text
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def unseal_relay(fd: int) -> RelaySettings:
    """The settings of a relay in ``fd``, which stays the caller's. Raises ``ValueError`` as ``unseal`` does."""
    return _unseal(fd, RelaySettings)


def _unseal(fd: int, kind: type[_Kind]) -> _Kind:
    size = os.fstat(fd).st_size
    if size > _LIMIT:
        raise ValueError(f"settings of {size} bytes")
    raw: Any = json.loads(os.pread(fd, size, 0))
    if not isinstance(raw, dict):
        raise ValueError("settings that are no JSON object")
    # A daemon newer than this guest may know more; what is unknown here cannot matter here.
    known = {name: value for name, value in raw.items() if name in kind._fields}
    missing = [name for name in kind._fields if name not in known and name not in kind._field_defaults]
    if missing:
        raise ValueError(f"settings without {', '.join(missing)}")
    return kind(**known)
