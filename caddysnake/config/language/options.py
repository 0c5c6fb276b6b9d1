"""The global options: those that mean something here, and the names of those that are Caddy's own business.

One file may be read by both, so an option of Caddy's is never an error here, and what it says is Caddy's to check.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Final

from ...caddyfile.addresses import is_socket
from ...caddyfile.dispenser import Dispenser
from ...caddyfile.errors import CaddyfileError, nearest
from ...caddyfile.tokens import Token
from . import values
from .models import Admin, GlobalOptions, Log, Position
from .registry import Registry, argument, arguments, block_fields, block_lines, lines, position_of
from .values import InvalidValue


class OptionsDraft:
    """The global options while they are read."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.where: dict[str, Position] = {}


OPTIONS: Registry[OptionsDraft] = Registry("global option")
_option = OPTIONS.register

_OURS: Final = """
    socket_mode socket_owner socket_group relays max_spawners trusted_proxies on_demand_ask reload_strategy start_policy
    memory_budget
"""
OURS: Final = frozenset(_OURS.split())
"""The options that a stock Caddy does not know. The others that are read here are Caddy's too."""

_CADDYS: Final = """
    acme_ca acme_ca_root acme_dns acme_eab admin auto_https cert_issuer cert_lifetime debug default_bind default_sni dns
    ech email events fallback_sni filesystem grace_period http_port https_port key_type local_certs log metrics
    ocsp_interval ocsp_stapling on_demand_tls order persist_config pki preferred_chains renew_interval
    renewal_window_ratio servers shutdown_delay skip_install_trust storage storage_check storage_clean_interval
    tls_resolvers
"""
CADDYS: Final = frozenset(_CADDYS.split())
"""Every global option of a stock Caddy."""


def read_options(segments: Sequence[Sequence[Token]]) -> tuple[GlobalOptions, list[CaddyfileError]]:
    """The options that mean something here, and everything that is wrong with them."""
    draft = OptionsDraft()
    errors: list[CaddyfileError] = []
    for tokens in segments:
        name = tokens[0].text
        if name not in OPTIONS.settings:
            if name not in CADDYS:
                known = nearest(name, CADDYS | OURS)
                errors.append(tokens[0].error(f'unknown global option "{name}"', known))
            continue
        try:
            OPTIONS.apply(tokens, draft, draft.where)
        except CaddyfileError as exc:
            errors.append(exc)
    position = position_of(segments[0][0]) if segments else Position("", 0)
    return GlobalOptions(**draft.fields, where=draft.where, position=position), errors


def read_bind(dispenser: Dispenser) -> tuple[values.SocketAddress, ...]:
    """The addresses on a ``bind`` or ``default_bind`` line that could be listened on here.

    What only Caddy can bind to (another network, a placeholder), and a block behind the addresses (``protocols``), are
    left to Caddy.
    """
    tokens = dispenser.remaining_arg_tokens()
    if not tokens:
        raise InvalidValue("takes one or more addresses, got 0")
    addresses = []
    for token in tokens:
        if values.placeholders(token.text) or ("/" in token.text and not is_socket(token.text)):
            continue
        try:
            addresses.append(values.socket_address(token.text))
        except InvalidValue as exc:
            raise token.error(str(exc), exc.hint) from None
    lines(dispenser)
    return tuple(addresses)


@_option("default_bind <address>...", repeatable=True)
def default_bind(d: Dispenser, options: OptionsDraft) -> None:
    """Where sites listen that have no `bind` of their own: sockets such as `unix//run/caddysnake/apps.sock|0660` or
    `tcp/127.0.0.1:9000`."""
    options.fields["default_bind"] = (*options.fields.get("default_bind", ()), *read_bind(d))


@_option("grace_period <duration>")
def grace_period(d: Dispenser, options: OptionsDraft) -> None:
    """How long requests may still run after a worker was told to stop. Default: 10s."""
    # It is Caddy's option too, and there 0 means that it waits for ever. Here something must end the wait.
    seconds = values.duration(argument(d))
    options.fields["grace_period_s"] = seconds if seconds > 0 else None


@_option("socket_mode <octal>")
def socket_mode(d: Dispenser, options: OptionsDraft) -> None:
    """The mode of unix sockets that have none in their address. Default: 0660. Caddy needs the right to write."""
    options.fields["socket_mode"] = values.socket_mode(argument(d))


@_option("socket_owner <user>")
def socket_owner(d: Dispenser, options: OptionsDraft) -> None:
    """The user who owns unix sockets that name none in their address. Default: the daemon's."""
    options.fields["socket_owner"] = argument(d)


@_option("socket_group <group>")
def socket_group(d: Dispenser, options: OptionsDraft) -> None:
    """The group of unix sockets that name none in their address, such as `caddy`. Default: the daemon's."""
    options.fields["socket_group"] = argument(d)


@_option("relays <count>")
def relays(d: Dispenser, options: OptionsDraft) -> None:
    """How many processes forward the requests of sockets that several apps share. Default: 1."""
    options.fields["relays"] = values.count(argument(d), most=256)


@_option("max_spawners <count>")
def max_spawners(d: Dispenser, options: OptionsDraft) -> None:
    """How many processes may stand ready to fork dynamic apps, one for each interpreter, user and set of preloaded
    modules; those that static apps, or all apps of a template, are forked from are not counted. An app that needs one
    more takes the place of the one that was used longest ago and has nothing to do; else it is 503. Default: 16."""
    options.fields["max_spawners"] = values.count(argument(d), most=4096)


@_option("trusted_proxies <range>...", repeatable=True)
def trusted_proxies(d: Dispenser, options: OptionsDraft) -> None:
    """From which addresses a TCP connection's forwarded headers are believed, as IP addresses or ranges such as
    `10.0.0.0/8`. Default: none."""
    for text in arguments(d, 1):
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise InvalidValue(f"{text!r} is not an IP address or a range of them") from None
        options.fields["trusted_proxies"] = (*options.fields.get("trusted_proxies", ()), str(network))


@_option("admin off|[<address>] [{ enforce_origin; origins <host>... }]")
def admin(d: Dispenser, options: OptionsDraft) -> None:
    """Where the admin API listens: a socket such as `unix//run/caddysnake/admin.sock|0660`, `localhost:2020`, or `off`.
    Default: a unix socket for the daemon's own user, in the runtime directory. Over TCP only a `Host`, and an `Origin`,
    of that address are accepted; `origins` names others, and `enforce_origin` asks for an `Origin` with every request.

    The option is Caddy's too. `run --caddy` leaves it to Caddy; `--admin` says where ours listens then."""
    words = arguments(d, 0, 1)
    found = block_fields(
        d,
        enforce_origin=("enforce_origin", lambda inner: not arguments(inner, 0, 0)),
        origins=("origins", lambda inner: tuple(arguments(inner, 1))),
    )
    if words == ["off"]:
        if found:
            raise InvalidValue("off takes no block")
        found["disabled"] = True
    elif words:
        found["listen"] = words[0]
    options.fields["admin"] = Admin(**found)


@_option("http_port <port>")
def http_port(d: Dispenser, options: OptionsDraft) -> None:
    """Caddy's port for plain HTTP. Read here only to tell people the addresses of their sites."""
    options.fields["http_port"] = argument(d)


@_option("https_port <port>")
def https_port(d: Dispenser, options: OptionsDraft) -> None:
    """Caddy's port for HTTPS. Read here only to tell people the addresses of their sites."""
    options.fields["https_port"] = argument(d)


@_option("auto_https <mode>...")
def auto_https(d: Dispenser, options: OptionsDraft) -> None:
    """What Caddy does about HTTPS by itself. Read here only to tell people the addresses of their sites."""
    options.fields["auto_https"] = " ".join(arguments(d, 1))


@_option("log [<name>] { level <level>, format json|console }", repeatable=True)
def log(d: Dispenser, options: OptionsDraft) -> None:
    """How the daemon's log is written, with its apps' output and their access logs: from which level on (`DEBUG`,
    `INFO`, the default, `WARN`, `ERROR`), as `json` or in `console` style. Default: console style on a terminal, else
    JSON. It is Caddy's option too: a log of another name than `default`, and what else is said of one, is Caddy's."""
    name = (arguments(d, 0, 1) or ["default"])[0]
    said: dict[str, str] = {}
    for inner in block_lines(d):
        if inner.val() == "level" and name == "default":
            try:
                level = argument(inner).lower()
                said["level"] = values.choice(level, ("debug", "info", "warn", "error", "panic", "fatal"))
            except InvalidValue as exc:
                raise inner.error(f"level of log: {exc}", exc.hint) from None
        elif inner.val() == "format" and name == "default":
            style = inner.remaining_args()[:1]
            if style in (["json"], ["console"]):
                said["format"] = style[0]
    if said:
        options.fields["log"] = options.fields.get("log", Log()).model_copy(update=said)


@_option("debug")
def debug(d: Dispenser, options: OptionsDraft) -> None:
    """Log more, unless the option `log` names a level. Caddy's option too."""
    arguments(d, 0, 0)
    options.fields["debug"] = True


@_option("on_demand_ask <address>")
def on_demand_ask(d: Dispenser, options: OptionsDraft) -> None:
    """Where Caddy may ask whether a host is served here, before it gets a certificate for it (on-demand TLS), such as
    `127.0.0.1:9123`. Caddy's own option is then `on_demand_tls { ask http://127.0.0.1:9123 }`, which `run --caddy` and
    `caddyfile` write."""
    text = argument(d)
    address = values.socket_address(text)
    if not address.network.startswith("tcp") or not address.host or not address.port:
        raise InvalidValue(f"{text!r} is no address that Caddy can ask", "it asks over HTTP: write 127.0.0.1:9123")
    host = f"[{address.host}]" if ":" in address.host else address.host
    options.fields["on_demand_ask"] = f"{host}:{address.port}"


@_option("reload_strategy parallel|rolling")
def reload_strategy(d: Dispenser, options: OptionsDraft) -> None:
    """How a reload replaces workers: all beside the old ones, the default, or one at a time, which takes less memory.
    Then the first new worker of each app decides whether the reload is refused, and old and new code serve for a while
    side by side."""
    options.fields["reload_strategy"] = values.choice(argument(d), ("parallel", "rolling"))


@_option("start_policy each|all")
def start_policy(d: Dispenser, options: OptionsDraft) -> None:
    """What an app that does not come up means for the others when the daemon starts. `each`, the default: they serve,
    and it is answered for with 503 and tried again; only when none comes up, the start has failed. `all`: the start has
    failed."""
    options.fields["start_policy"] = values.choice(argument(d), ("each", "all"))


@_option("memory_budget <size>|off")
def memory_budget(d: Dispenser, options: OptionsDraft) -> None:
    """How much memory all workers together may have, such as `4GB`. When it is more, dynamic apps that nobody has asked
    for longest are put to sleep, then apps with two numbers of `workers` get fewer; and no app grows beyond it.
    Default: off."""
    text = argument(d)
    options.fields["memory_budget"] = None if text == "off" else values.positive_size(text)
