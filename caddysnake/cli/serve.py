"""Serve one app behind a stock Caddy, without writing a Caddyfile.

    caddysnake serve blog:app
    caddysnake serve blog
    caddysnake serve --domain blog.example.com --workers 4 blog:app

Without a module, what is called main, app, wsgi or asgi is served, or the project beside a manage.py. Without a
variable, app, application or a factory is looked for in the module. Whether the app is WSGI or ASGI is told
by looking at it; --wsgi and --asgi force one. The virtual environment that is active, or a .venv beside the app or
above it, up to the current folder, is used. With --domain Caddy gets a certificate and serves HTTPS on ports 80 and
443. --print shows the Caddyfile that this command stands for.
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
from .named_app import NamedApp, UnservableValue, Venv, found_in, named, venv_of
from .reading import Source
from .run import EXIT_FAILED, serve_file
from .understanding import RunSetting

_DEFAULT_HOST, _DEFAULT_PORT = "127.0.0.1", "9080"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "app",
        metavar="MODULE[:VARIABLE]",
        nargs="?",
        help="such as blog:app, blog, or a factory: blog:make_app(); default: what is there of main, app, wsgi, asgi",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--wsgi", action="store_true", help="the app is WSGI")
    kind.add_argument("--asgi", action="store_true", help="the app is ASGI")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-l", "-b", "--listen", "--bind", metavar="HOST:PORT", help="plain HTTP there (default: 127.0.0.1:9080)"
    )
    where.add_argument("-d", "--domain", metavar="NAME", help="HTTPS for this name, on ports 80 and 443")
    parser.add_argument("--host", metavar="HOST", help="plain HTTP on this address (default: 127.0.0.1)")
    parser.add_argument("-p", "--port", metavar="PORT", help="plain HTTP on this port (default: 9080)")
    parser.add_argument("-w", "--workers", metavar="N", help="worker processes (default: one a core)")
    parser.add_argument("--threads", metavar="N", help="threads a worker, for WSGI (default: 8)")
    parser.add_argument("--working-dir", "--app-dir", metavar="DIR", help="where the app's module is (default: here)")
    parser.add_argument("--venv", metavar="DIR", help="its virtual environment (default: the active one, else .venv)")
    parser.add_argument("--python-path", metavar="FILE", help="the app's interpreter")
    parser.add_argument("--env-file", metavar="FILE", action="append", default=[], help="variables; repeatable")
    parser.add_argument("--env-var", metavar="NAME=VALUE", action="append", default=[], help="one variable; repeatable")
    parser.add_argument("--lifespan", choices=["on", "off", "auto"], help="ASGI lifespan (default: auto)")
    parser.add_argument("--runtime", choices=["native", "uvloop", "sync"], help="asyncio's loop, uvloop, or threads")
    parser.add_argument("--start-timeout", metavar="TIME", help="how long the app may take to load (default: 120s)")
    parser.add_argument("--request-body-max-size", metavar="SIZE", help="refuse larger bodies with 413")
    parser.add_argument("--static-path", metavar="DIR", help="files that Caddy serves by itself")
    parser.add_argument("--static-route", metavar="PATH", default="/static", help="where (default: /static)")
    parser.add_argument(
        "--autoreload", "--reload", action="store_true", help="start afresh when the code, or an env file, changes"
    )
    parser.add_argument("--factory", action="store_true", help="accepted and ignored: a factory is seen to be one")
    parser.add_argument("--access-logs", action="store_true", help="Caddy logs every request")
    parser.add_argument("--debug", action="store_true", help="log more")
    parser.add_argument("--print", dest="print_only", action="store_true", help="print the Caddyfile and do nothing")


def main(args: argparse.Namespace) -> int:
    """Serve until told to stop; 1 when that cannot be."""
    logs.set_up(debug=args.debug)
    args.wsgi = args.wsgi or args.runtime == "sync"
    try:
        app = named(args.app or found_in(args.working_dir or "."), args.working_dir)
        text = caddyfile(args, app)
    except UnservableValue as exc:
        logs.tell(f"Error: {exc}", "error")
        return EXIT_FAILED
    if args.print_only:
        print(text, end="")
        if app.interface is None and not (args.wsgi or args.asgi):
            print(f"Note: no file says whether {app.name} is ASGI: --wsgi or --asgi does", file=sys.stderr)
        return 0
    try:
        left = inherited(os.environ)
    except StateError as exc:
        logs.tell(f"Error: {exc}", "error")
        return EXIT_FAILED
    if left is None and args.app is None:
        logs.tell(f"Note: serves {app.name}, since nobody has named an app")
    if left is None and (venv := _venv(args, app)) is not None:
        logs.tell(f"Note: the app runs in {venv.path}, {venv.why} (--venv or --python-path names another)")
    source = Source(text.encode(), f"(serve {args.domain or _listen(args)})")  # its sockets get a folder by this name
    adjust = partial(_adjust, args=args, app=app)
    setting = RunSetting("", adjust=adjust, is_written=False, is_patient=args.autoreload)
    return serve_file(source, True, setting, left)


def _listen(args: argparse.Namespace) -> str:
    """``HOST:PORT``. Raises ``UnservableValue``."""
    if args.listen is None and args.domain is None:
        host = args.host or _DEFAULT_HOST
        if args.port is not None and not args.port.isdecimal():
            raise UnservableValue(f"--port {args.port}: write a number, such as {_DEFAULT_PORT}")
        return f"{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{args.port or _DEFAULT_PORT}"
    if args.host is not None or args.port is not None:
        other = "--listen" if args.listen else "--domain"
        raise UnservableValue(f"--host and --port say the same as {other}: give one")
    return args.listen or ""


def _venv(args: argparse.Namespace, app: NamedApp) -> Venv | None:
    """The virtual environment that nobody has named, if there is one."""
    return venv_of(app.working_dir, os.environ) if args.venv is None and args.python_path is None else None


def caddyfile(args: argparse.Namespace, app: NamedApp) -> str:
    """The Caddyfile that the arguments stand for. Raises ``UnservableValue``."""
    listen = _listen(args)
    host, colon, port = listen.rpartition(":")
    if listen and (not colon or not port.isdecimal() or (":" in host and not host.startswith("["))):
        what = "write HOST:PORT, such as 127.0.0.1:9080, or :PORT for all"
        if listen.startswith("unix"):
            what = "serve is for TCP; for a socket behind your own Caddy write a Caddyfile and `caddysnake run` it"
        raise UnservableValue(f"--listen {listen}: {what}")
    site = []
    if args.access_logs:
        site += ["log"]
    if args.domain is None and host:
        site += [f"bind {_quote(host.strip('[]'))}"]
    if args.static_path is not None:
        route = args.static_route.rstrip("/").removesuffix("/*") or ""
        site += [f"handle_path {_quote(route + '/*')} {{", f"\troot * {_quote(args.static_path)}", "\tfile_server", "}"]
    site += ["encode zstd gzip", "python {", *(f"\t{line}" for line in _python(args, app)), "}"]
    options = ["admin off"] + (["auto_https off"] if args.domain is None else [])
    # Whatever name a browser calls it by.
    address = args.domain or f"http://:{port}"
    lines = ["{", *(f"\t{line}" for line in options), "}", "", f"{address} {{", *(f"\t{line}" for line in site), "}"]
    return "\n".join(lines) + "\n"


def _python(args: argparse.Namespace, app: NamedApp) -> list[str]:
    told = "wsgi" if args.wsgi else "asgi" if args.asgi else app.interface
    wsgi = told == "wsgi"
    lines = [f"module_{'wsgi' if wsgi else 'asgi'} {_quote(app.name)}", "pass_env *"]
    settings = {"working_dir": app.working_dir, "venv": args.venv, "python_path": args.python_path}
    if (venv := _venv(args, app)) is not None:
        settings["venv"] = venv.path
    settings |= {name: getattr(args, name) for name in ("workers", "start_timeout", "request_body_max_size", "runtime")}
    settings |= {"threads": args.threads} if wsgi else {"lifespan": args.lifespan}
    lines += [f"{name} {_quote(value)}" for name, value in settings.items() if value is not None]
    for path in args.env_file:  # as the shell completes it, and not from the app's folder, as in a Caddyfile
        is_here = app.working_dir is not None and os.path.exists(path)
        lines.append(f"env_file {_quote(os.path.abspath(path) if is_here else path)}")
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


def _adjust(composition: Desired, args: argparse.Namespace, app: NamedApp) -> Desired:
    def inspected(now: Callable[[], PoolSpec]) -> PoolSpec:
        return _inspecting(now(), args, app)

    apps = {number: _inspecting(each, args, app) for number, each in composition.apps.items()}
    again = {number: partial(inspected, now) for number, now in composition.again.items()}
    return composition._replace(apps=apps, again=again)


def _inspecting(spec: PoolSpec, args: argparse.Namespace, app: NamedApp) -> PoolSpec:
    """Have the worker find out what the app is, unless somebody has said so."""
    assert isinstance(spec.settings, Settings)
    settings = spec.settings._replace(finds_app=True)
    if app.is_found:
        settings = settings._replace(variable="")
    if args.wsgi or args.asgi:
        return spec._replace(settings=settings)
    settings = settings._replace(interface="auto")
    if args.threads is not None and args.threads.isdigit() and int(args.threads) > 0:
        settings = settings._replace(threads=int(args.threads))
    return spec._replace(settings=settings, key=spec.key._replace(interface="auto"))
