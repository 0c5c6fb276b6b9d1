"""Where commands and the daemon of a Caddyfile meet when nobody has said where: by its default socket, or its word.

Imports next to nothing: a health check has a few milliseconds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from glob import escape, glob
from typing import Final

from .places import default_socket_dir, runtime_folder, service_folder

ANNOUNCED: Final = "caddysnake:"
"""How the name of a socket begins that announces the address behind it: a path, or ``TCP`` and a port."""
TCP: Final = "tcp/"


def default_path(file: str, environ: Mapping[str, str]) -> str:
    """The default socket of a daemon that runs ``file`` (absolute) in the environment ``environ``."""
    return f"{next(_folders(environ))}/{name_for(file)}"


def default_sockets(environ: Mapping[str, str]) -> list[str]:
    """Default sockets that are there; first where a daemon of this environment would be, then services'."""
    folders = [*_folders(environ), *sorted(glob("/run/caddysnake*/admin")), *sorted(glob("/run/caddysnake/*/admin"))]
    return [path for folder in dict.fromkeys(folders) for path in sorted(glob(f"{escape(folder)}/*.sock"))]


def name_for(file: str) -> str:
    """The name of the default socket of a daemon that runs ``file`` (absolute)."""
    return hashlib.sha256(os.fsencode(file)).hexdigest()[:16] + ".sock"


def _folders(environ: Mapping[str, str]) -> Iterator[str]:
    """Where default sockets are; a daemon takes the first."""
    if (service := service_folder(environ)) is not None:
        yield f"{service}/admin"
    if (runtime := runtime_folder(environ)) is not None:
        yield f"{runtime}/caddysnake/admin"
    yield f"{default_socket_dir()}/admin"
