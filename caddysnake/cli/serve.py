"""Serve one app behind a stock Caddy, without writing a Caddyfile.

    caddysnake serve blog:app
    caddysnake serve --domain blog.example.com --workers 4 blog:app

Whether the app is WSGI or ASGI is told by looking at it; --wsgi and --asgi force one. With --domain Caddy gets a
certificate and serves HTTPS on ports 80 and 443. --print shows the Caddyfile that this command stands for.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial

from ..channel.settings import Settings
from ..daemon.apps.spec import PoolSpec
from ..daemon.supervisor.desired import Desired
from ..daemon.system.log import records as logs
from ..daemon.system.state import StateError
from ..daemon.upgrade.handover import inherited
from .reading import Source
from .run import EXIT_FAILED, serve_file
from .understanding import Setting

_DEFAULT_LISTEN = "127.0.0.1:9080"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("app", metavar="MODULE:VARIABLE", help="such as blog:app, or a factory: blog:make_app()")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--wsgi", action="store_true", help="the app is WSGI")
    kind.add_argument("--asgi", action="store_true", help="the app is ASGI")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-l", "--listen", metavar="HOST:PORT", default=_DEFAULT_LISTEN, help=f"plain HTTP there ({_DEFAULT_LISTEN})"
    )
    where.add_argument("-d", "--domain", metavar="NAME", help="HTTPS for this name, on ports 80 and 443")
    parser.add_argument("-w", "--workers", metavar="N", help="worker processes (default: one a core)")
    parser.add_argument("--threads", metavar="N", help="threads a worker, for WSGI (default: 8)")
    parser.add_argument("--working-dir", metavar="DIR", help="where the app's module is (default: here)")
    parser.add_argument("--venv", metavar="DIR", help="the app's virtual environment")
    parser.add_argument("--python-path", metavar="FILE", help="the app's interpreter")
    parser.add_argument("--env-file", metavar="FILE", action="append", default=[], help="variables; repeatable")
    parser.add_argument("--env-var", metavar="NAME=VALUE", action="append", default=[], help="one variable; repeatable")
    parser.add_argument("--lifespan", choices=["on", "off", "auto"], help="ASGI lifespan (default: auto)")
    parser.add_argument("--runtime", choices=["native", "uvloop", "sync"], help="asyncio's loop, uvloop, or threads")
    parser.add_argument("--start-timeout", metavar="TIME", help="how long the app may take to load (default: 120s)")
    parser.add_argument("--request-body-max-size", metavar="SIZE", help="refuse larger bodies with 413")
    parser.add_argument("--static-path", metavar="DIR", help="files that Caddy serves by itself")
    parser.add_argument("--static-route", metavar="PATH", default="/static", help="where (default: /static)")
    parser.add_argument("--autoreload", action="store_true", help="start afresh when the code changes")
    parser.add_argument("--access-logs", action="store_true", help="Caddy logs every request")
    parser.add_argument("--debug", action="store_true", help="log more")
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the Caddyfile and do nothing")


class UnservableValue(ValueError):
    """A value that cannot be written into a Caddyfile."""


def main(args: argparse.Namespace) -> int:
    """Serve until told to stop; 1 when that cannot be."""
    try:
        text = caddyfile(args)
    except UnservableValue as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return EXIT_FAILED
    if args.print_only:
        print(text, end="")
        return 0
    logs.set_up(debug=args.debug)
    try:
        left = inherited(os.environ)
    except StateError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return EXIT_FAILED
    told = args.wsgi or args.asgi or _only_wsgi(args)
    source = Source(text.encode(), f"(serve {args.domain or args.listen})")  # its sockets get a folder by this name
    adjust = partial(_adjust, inspect=not told, args=args)
    setting = Setting("", adjust=adjust, is_written=False, is_patient=args.autoreload)
    return serve_file(source, True, setting, left)


def _only_wsgi(args: argparse.Namespace) -> bool:
    return bool(args.runtime == "sync")


def caddyfile(args: argparse.Namespace) -> str:
    """The Caddyfile that the arguments stand for. Raises ``UnservableValue``."""
    host, colon, port = args.listen.rpartition(":")
    if not colon or not port.isdecimal() or (":" in host and not host.startswith("[")):
        raise UnservableValue(f"--listen {args.listen}: write HOST:PORT, such as {_DEFAULT_LISTEN}, or :PORT for all")
    address = args.domain or f"http://{args.listen}"
    site = []
    if args.access_logs:
        site += ["log"]
    if args.domain is None and host:
        site += [f"bind {_quote(host.strip('[]'))}"]
    if args.static_path is not None:
        route = args.static_route.rstrip("/").removesuffix("/*") or ""
        site += [f"handle_path {_quote(route + '/*')} {{", f"\troot * {_quote(args.static_path)}", "\tfile_server", "}"]
    site += ["encode zstd gzip", "python {", *(f"\t{line}" for line in _python(args)), "}"]
    options = ["admin off"] + (["auto_https off"] if args.domain is None else [])
    lines = ["{", *(f"\t{line}" for line in options), "}", "", f"{address} {{", *(f"\t{line}" for line in site), "}"]
    return "\n".join(lines) + "\n"


def _python(args: argparse.Namespace) -> list[str]:
    wsgi = args.wsgi or _only_wsgi(args)
    lines = [f"{'module_wsgi' if wsgi else 'module_asgi'} {_quote(args.app)}", "pass_env *"]
    for name in ("working_dir", "venv", "python_path", "workers", "start_timeout", "request_body_max_size", "runtime"):
        value = getattr(args, name)
        if value is not None:
            lines.append(f"{name} {_quote(value)}")
    if wsgi and args.threads is not None:
        lines.append(f"threads {_quote(args.threads)}")
    if not wsgi and args.lifespan is not None:
        lines.append(f"lifespan {args.lifespan}")
    lines += [f"env_file {_quote(path)}" for path in args.env_file]
    for entry in args.env_var:
        name, equals, value = entry.partition("=")
        if not equals:
            raise UnservableValue(f"--env-var {entry}: write NAME=VALUE")
        lines.append(f"env_var {_quote(name)} {_quote(value)}")
    if args.autoreload:
        lines.append("autoreload")
    return lines


def _quote(value: str) -> str:
    """``value`` as one token that means itself: no placeholder, no end of the quote."""
    if "{$" in value:
        raise UnservableValue(f"{value}: `{{$` begins a substitution in a Caddyfile; write one and `caddysnake run` it")
    escaped = value.replace("{", "\\{").replace("}", "\\}")
    if '"' not in value and not value.endswith("\\"):
        return f'"{escaped}"' if not value or not value.replace("-", "").replace("_", "").isalnum() else value
    if "`" not in value:
        return f"`{escaped}`"
    raise UnservableValue(f"{value}: holds both kinds of quotes; write a Caddyfile and `caddysnake run` it")


def _adjust(composition: Desired, inspect: bool, args: argparse.Namespace) -> Desired:
    if not inspect:
        return composition
    apps = {number: _inspecting(app, args) for number, app in composition.apps.items()}
    again = {number: partial(_again, now, args) for number, now in composition.again.items()}
    return composition._replace(apps=apps, again=again)


def _again(now: Callable[[], PoolSpec], args: argparse.Namespace) -> PoolSpec:
    return _inspecting(now(), args)


def _inspecting(app: PoolSpec, args: argparse.Namespace) -> PoolSpec:
    assert isinstance(app.settings, Settings)
    settings = app.settings._replace(interface="auto")
    if args.threads is not None and args.threads.isdigit() and int(args.threads) > 0:
        settings = settings._replace(threads=int(args.threads))
    return app._replace(settings=settings, key=app.key._replace(interface="auto"))
