"""What is said once apps serve: how many, where a browser finds them, and what keeps it from trusting them."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ..config.language.models import Config, Site
from ..daemon.supervisor.desired import Desired

_INTERNAL: Final = ("localhost", ".localhost", ".local", ".internal", ".home.arpa")
"""Names that no public authority signs for, so that Caddy does it itself."""
_NOT_INSTALLED: Final = re.compile(r"^\s*skip_install_trust\b", re.MULTILINE)
_ALL_INTERNAL: Final = re.compile(r"^\s*(local_certs|tls\s+internal)\b", re.MULTILINE)
_ROOT: Final = "caddy/pki/authorities/local/root.crt"


def ready_line(composition: Desired, where: list[str], seconds: float, failed: Mapping[str, str]) -> str:
    """After ``seconds``, with ``where`` as ``whereabouts`` says it. ``failed``: apps that are not up, with why."""
    apps = len(composition.apps) - len(failed.keys() & {spec.name for spec in composition.apps.values()})
    names = {spec.name for spec in composition.templates.values()}
    templates = len(names) - len(failed.keys() & names)
    parts = []
    if apps or not templates:
        parts.append(f"{apps} app{'' if apps == 1 else 's'}")
    if templates:
        parts.append(f"{templates} template{'' if templates == 1 else 's'} of apps")
    down = ", ".join(f"{name} ({code})" for name, code in failed.items())
    missing = [f"Not up, and tried again: {down}."] if down else []
    return " ".join([f"{' and '.join(parts)} ready in {seconds:.1f} s.", *where, *missing])


def whereabouts(config: Config, caddys: str, environ: Mapping[str, str]) -> list[str]:
    """The addresses that Caddy, which runs ``caddys``, serves, and a word on a certificate that is its own."""
    found = dict(_urls(config))
    everywhere = _ALL_INTERNAL.search(caddys) is not None
    own = [url for url, host in found.items() if url.startswith("https:") and (everywhere or _is_internal(host))]
    return [*found, *([_of_root(own[0], caddys, environ)] if own else [])]


def _urls(config: Config) -> Iterator[tuple[str, str]]:
    """Each with its host."""
    options = config.options
    for site, address in ((each, address) for each in config.sites for address in each.addresses):
        if address.socket is not None or "*" in address.host or "{" in address.host:
            continue
        plain = address.scheme == "http" or (
            address.scheme != "https"
            and (
                address.port == options.http_port
                or (not address.host and address.port != options.https_port)
                or options.auto_https == "off"
            )
        )
        scheme = "http" if plain else "https"
        served = address.port or (options.http_port if plain else options.https_port)
        port = "" if served == ("80" if plain else "443") else f":{served}"
        host = address.host or _bound_to(site) or "localhost"
        yield f"{scheme}://{f'[{host}]' if ':' in host else host}{port}/", host


def _bound_to(site: Site) -> str:
    """The one address that a site listens on, if it is one."""
    hosts = {socket.host for socket in site.bind}
    host = hosts.pop() if len(hosts) == 1 else ""
    return "" if host in ("0.0.0.0", "::") else host


def _is_internal(host: str) -> bool:
    if host.endswith(_INTERNAL):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _of_root(url: str, caddys: str, environ: Mapping[str, str]) -> str:
    data = environ.get("XDG_DATA_HOME") or os.path.join(environ.get("HOME", "/"), ".local/share")
    root = Path(data) / _ROOT
    where = f" ({root}: `curl --cacert {root} {url}`)" if root.exists() else ""
    if _NOT_INSTALLED.search(caddys):
        how = f"its root certificate{where} is not installed here (skip_install_trust): import it where you browse."
    else:
        how = f"it installs its root certificate{where} here if it may; import it where else you browse."
    return f"Caddy signs {url} itself, and {how}"
