"""Where the admin API listens, and whom it answers: the ``admin`` option carried out, and its default.

The default is a unix socket that its owner alone may use, in a folder that its owner alone may enter. Its name follows
from the Caddyfile's path, so that ``caddysnake reload --config F`` finds the daemon that runs ``F``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from ... import files
from ..language import values
from ..language.models import Admin, GlobalOptions
from ..language.values import InvalidValue, SocketAddress
from .places import absolute, start_folder
from .rendezvous import default_path

DEFAULT_MODE: Final = 0o600
_HINT: Final = "write unix//run/caddysnake/admin.sock, localhost:2020, or off"


class AdminEndpoint(NamedTuple):
    """What the admin API is to do. ``listen`` None: nothing."""

    listen: SocketAddress | None
    origins: tuple[str, ...] = ()
    """Hosts, as in ``Host`` and ``Origin``, by which it may be called besides its own."""
    enforce_origin: bool = False
    is_default: bool = False
    """Nobody asked for this address: a daemon that cannot have it runs without an admin API."""


OFF: Final = AdminEndpoint(None)


def admin_endpoint(
    options: GlobalOptions,
    file: str,
    environ: Mapping[str, str],
    *,
    for_caddy: bool,
    override: str | None = None,
    base_dir: str | None = None,
) -> AdminEndpoint:
    """The endpoint of a daemon that runs the Caddyfile ``file`` with these ``options``; ``environ`` says where its
    runtime directory is. ``for_caddy``: the option ``admin`` is about the API of a supervised Caddy, not about this.
    ``override``: an address, or ``off``, before what the file says. ``base_dir``: as for ``plan``. Raises
    ``CaddyfileError``, or ``InvalidValue`` for ``override``: it cannot be listened on.
    """
    base = base_dir or start_folder(environ)
    said = Admin() if for_caddy or options.admin is None else options.admin
    address = override if override is not None else "off" if said.disabled else said.listen
    if address == "off":
        return OFF
    asked = said.origins, said.enforce_origin
    if address is None:
        path = default_path(absolute(file, base), environ)
        return AdminEndpoint(SocketAddress("unix", path, mode=DEFAULT_MODE), *asked, is_default=True)
    try:
        return AdminEndpoint(_address(address, base), *asked)
    except InvalidValue as exc:
        if override is not None:
            raise
        raise options.at("admin").error(f"admin: {exc}", exc.hint) from None


def _address(text: str, base: str) -> SocketAddress:
    if values.placeholders(text):
        raise InvalidValue(f"{text!r} holds a placeholder", "write {$NAME} for a variable of the environment")
    address = values.socket_address(text)
    if address.network == "unix":
        return address._replace(path=absolute(address.path, base), mode=address.mode or DEFAULT_MODE)
    if address.network != "fd" and address.port is None:
        raise InvalidValue(f"{text!r} has no port", _HINT)
    return address


def make_private(folder: str) -> None:
    """Make ``folder`` of mode 0700 if need be. Raises ``OSError``, also when it is not private."""
    os.close(files.open_folder(os.path.dirname(folder), make=0o755))
    handle = files.open_folder(folder, make=0o700)
    try:
        info = os.fstat(handle)
    finally:
        os.close(handle)
    if info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise PermissionError(1, "it is not a private folder of this user", folder)
