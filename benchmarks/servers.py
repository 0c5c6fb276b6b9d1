"""Who is measured. A new peer is a function that returns its command line, and one entry in `SERVERS`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

APPS = Path(__file__).parent / "apps"


class BenchmarkError(Exception):
    """Something is missing or does not work; the message says what to do."""


class Interface(Enum):
    ASGI = "asgi"
    WSGI = "wsgi"


@dataclass(frozen=True)
class Launch:
    """What a server is asked to do: serve `app` on a port of 127.0.0.1 or, if `socket` is set, on a unix socket."""

    interface: Interface
    app: str
    """`module:variable`, to be found in `APPS`."""
    workers: int
    folder: Path
    """Empty, for configuration files."""
    binaries: Path
    """`bin` of the virtual environment with the server's packages."""
    port: int = 0
    socket: Path | None = None

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Server:
    """`packages` are installed into an environment of the server's own; without any, ours is used."""

    name: str
    command: Callable[[Launch], list[str]]
    packages: tuple[str, ...] = ()
    interfaces: frozenset[Interface] = field(default_factory=lambda: frozenset(Interface))
    program: str | None = None
    """A program that must be on PATH; the server is left out where it is not."""
    only_behind_caddy: bool = False

    def missing(self) -> str | None:
        if self.program is not None and find_program(self.program) is None:
            return f"{self.program} is not installed"
        return None


def find_program(name: str) -> str | None:
    """Debian keeps nginx where a plain user's PATH does not lead."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def caddysnake(launch: Launch) -> list[str]:
    address = f"unix/{launch.socket}|0600" if launch.socket else f"tcp/127.0.0.1:{launch.port}"
    config = launch.write(
        "Caddyfile",
        f"""{address} {{
	python {{
		module_{launch.interface.value} {launch.app}
		working_dir {APPS}
		workers {launch.workers}
	}}
}}
""",
    )
    return [str(launch.binaries / "caddysnake"), "run", "--config", str(config)]


def uvicorn(launch: Launch) -> list[str]:
    listen = ["--uds", str(launch.socket)] if launch.socket else ["--host", "127.0.0.1", "--port", str(launch.port)]
    command = [str(launch.binaries / "uvicorn"), launch.app, "--app-dir", str(APPS), *listen]
    return [*command, "--workers", str(launch.workers), "--no-access-log", "--log-level", "warning"]


def granian(launch: Launch) -> list[str]:
    listen = ["--uds", str(launch.socket)] if launch.socket else ["--host", "127.0.0.1", "--port", str(launch.port)]
    command = [str(launch.binaries / "granian"), launch.app, "--interface", launch.interface.value, *listen]
    return [*command, "--working-dir", str(APPS), "--workers", str(launch.workers), "--log-level", "warning"]


def gunicorn_gthread(launch: Launch) -> list[str]:
    listen = f"unix:{launch.socket}" if launch.socket else f"127.0.0.1:{launch.port}"
    command = [str(launch.binaries / "gunicorn"), "--bind", listen, "--chdir", str(APPS), "--log-level", "warning"]
    return [*command, "--worker-class", "gthread", "--threads", "8", "--workers", str(launch.workers), launch.app]


def nginx(launch: Launch) -> list[str]:
    """Answers by itself: what an upstream that costs nothing would reach."""
    config = launch.write(
        "nginx.conf",
        f"""daemon off;
worker_processes {launch.workers};
pid {launch.folder}/nginx.pid;
error_log {launch.folder}/error.log;
events {{ worker_connections 1024; }}
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

SERVERS = {
    server.name: server
    for server in (
        Server(OURS, caddysnake),
        Server("uvicorn", uvicorn, ("uvicorn[standard]",), frozenset({Interface.ASGI})),
        Server("granian", granian, ("granian",)),
        Server("gunicorn-gthread", gunicorn_gthread, ("gunicorn",), frozenset({Interface.WSGI})),
        Server("nginx-itself", nginx, program="nginx", only_behind_caddy=True),
    )
}


def our_binaries() -> Path:
    """`bin` of the environment this runs in, which `make bench` has made."""
    return Path(sys.executable).parent
