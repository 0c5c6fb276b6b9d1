"""A table of named settings, each a function with its syntax line.

The syntax line says what would be right when something is wrong, and it and the docstring become the reference page.
The functions raise :class:`InvalidValue`, which knows no position; :meth:`Registry.apply` adds the name, the place and
the syntax.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ...caddyfile.dispenser import Dispenser
from ...caddyfile.errors import nearest
from ...caddyfile.tokens import Token
from .models import Position
from .values import InvalidValue

_SOCKET: Final = "the site's address says where: unix//run/app.sock, tcp/127.0.0.1:9000; with --caddy nothing is needed"
_APP: Final = "write module_wsgi module:variable or module_asgi module:variable"
_FOLDER: Final = "write working_dir PATH; files are Caddy's to serve: root and file_server outside of the block"
_LOG: Final = "write log in the block for its requests; the global option log says how, and from which level on"
_PROXY: Final = "nothing is needed on a unix socket; trusted_proxies, a global option, names proxies on TCP"

_WORDS: Final = {
    "write env_var NAME VALUE, or env_file PATH": "env environment envs environ setenv variable vars",
    "write env_file PATH": "dotenv env_files environment_file envfile",
    "write pass_env NAME, or pass_env *": "import_env inherit_env clear_env",
    _SOCKET: "bind listen host port socket uds unix address http http_socket fd",
    _APP: "app application module wsgi asgi wsgi_file wsgi_app callable entrypoint factory interface",
    _FOLDER: "root chdir cwd dir directory app_dir pythonpath_dir base_dir project",
    "write autoreload": "reload auto_reload watch py_autoreload reload_dir debug",
    "write python_path PATH": "python interpreter executable python_home",
    "write venv PATH": "virtualenv home env_path venv_path",
    "write workers COUNT": "processes worker instances concurrency num_workers",
    "write threads COUNT": "thread enable_threads blocking_threads",
    "write request_timeout TIME": "timeout harakiri read_timeout",
    "write grace_period TIME": "graceful_timeout timeout_graceful_shutdown stop_timeout workers_kill_timeout",
    "write start_timeout TIME": "boot_timeout startup_timeout",
    "write preload MODULE": "preload_app lazy_apps",
    "write user NAME": "uid run_as chown owner",
    "write group NAME": "gid",
    "write max_queue COUNT": "backlog limit_concurrency backpressure queue",
    "write max_requests COUNT": "limit_max_requests",
    "write max_lifetime TIME": "workers_lifetime max_worker_lifetime",
    "write max_memory SIZE to replace workers that grow, or limits { memory SIZE }": (
        "memory reload_on_rss workers_max_rss max_rss memory_limit mem"
    ),
    "write runtime uvloop or runtime native": "loop event_loop worker_class",
    _LOG: "access_log accesslog access_logfile error_log log_level loglevel log_config logto logging",
    _PROXY: "proxy_headers forwarded_allow_ips proxy_protocol trusted_proxies",
    "write handle_path /prefix/* around the block: its prefix becomes SCRIPT_NAME, or root_path": (
        "root_path script_name url_path_prefix mount prefix"
    ),
    "files are Caddy's to serve: root and file_server outside of the block": (
        "static static_path static_route static_files file_server static_map"
    ),
    "TLS is Caddy's: its site's address, or the directive tls": "tls ssl certfile keyfile ssl_keyfile ssl_certfile",
    "write health_uri PATH": "healthcheck health health_check health_path",
    "write process NAME COMMAND": "command daemon background attach_daemon mule",
    'write schedule NAME "CRON" COMMAND': "cron timer",
    "write release COMMAND": "migrate before_start pre_start",
    "write affinity cookie": "sticky sticky_sessions",
}

ELSEWHERE: Final = {word.replace("_", ""): what for what, words in _WORDS.items() for word in words.split()}
"""Words without ``_``, each with what to write."""


Draft = TypeVar("Draft")
Handler = Callable[[Dispenser, Draft], None]


class Setting(NamedTuple, Generic[Draft]):
    """One (sub)directive."""

    name: str
    syntax: str
    handler: Handler[Draft]
    repeatable: bool
    """May be written more than once."""

    @property
    def doc(self) -> str:
        """The reference text."""
        return (self.handler.__doc__ or "").strip()


class Registry(Generic[Draft]):
    """Settings by name, for one kind of draft."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        """What one of these is called: ``subdirective``, ``global option``."""
        self.settings: dict[str, Setting[Draft]] = {}
        self.refused: dict[str, str] = {}
        """Names that are known and not offered, with the reason and what to do instead."""

        self.elsewhere: dict[str, str] = {}
        """Words of other servers, and what to write here. In lower case, without ``-`` and ``_``."""

    def register(self, syntax: str, *, repeatable: bool = False) -> Callable[[Handler[Draft]], Handler[Draft]]:
        """Decorate the function that reads what begins ``syntax``; the dispenser it gets stands on that."""
        name = syntax.partition(" ")[0]

        def add(handler: Handler[Draft]) -> Handler[Draft]:
            self.settings[name] = Setting(name, syntax, handler, repeatable)
            return handler

        return add

    def apply(self, tokens: Sequence[Token], draft: Draft, seen: dict[str, Position]) -> None:
        """Read one line, and the block it opens, into *draft*. *seen* says where each name was written first. Raises
        ``CaddyfileError``: the name is unknown or not offered, or what follows it is wrong.
        """
        dispenser = Dispenser(tokens)
        dispenser.next()
        token = dispenser.token()
        name = token.text
        if name in self.refused:
            raise dispenser.error(f"{name} is not offered here: {self.refused[name]}")
        setting = self.settings.get(name)
        if setting is None:
            theirs = self.elsewhere.get(re.sub("[-_]", "", name.lower()))
            known = theirs or nearest(name, self.settings) or "known are " + ", ".join(sorted(self.settings))
            raise dispenser.error(f'unknown {self.kind} "{name}"', known)
        first = seen.setdefault(name, position_of(token))
        if not setting.repeatable and first != position_of(token):
            raise dispenser.error(f"{name} is written twice, first on line {first.line}", "take one of them away")
        try:
            setting.handler(dispenser, draft)
            expect_end(dispenser)
        except InvalidValue as exc:
            where = dispenser.inner or dispenser
            raise where.error(f"{name}: {exc}", exc.hint or f"the syntax is: {setting.syntax}") from None


def position_of(token: Token) -> Position:
    """Where *token* stands."""
    return Position(token.file, token.line, token.imports)


def arguments(dispenser: Dispenser, least: int, most: int | None = None) -> list[str]:
    """The arguments of this line, when there are as many as asked for; else raises ``InvalidValue``."""
    found = dispenser.remaining_args()
    if len(found) < least or (most is not None and len(found) > most):
        if least == most:
            wanted = f"{'one argument' if least == 1 else f'{least} arguments'}"
        elif most is None:
            wanted = f"{least} or more arguments"
        else:
            wanted = f"{least} to {most} arguments"
        raise InvalidValue(f"takes {wanted}, got {len(found)}")
    return found


def argument(dispenser: Dispenser) -> str:
    """The one argument of this line, which may not be empty."""
    (text,) = arguments(dispenser, 1, 1)
    if not text:
        raise InvalidValue("the argument is empty")
    return text


def lines(dispenser: Dispenser) -> list[list[Token]]:
    """The lines of the block that is opened here, each with the blocks that it opens itself."""
    found = []
    nesting = dispenser.nesting()
    while dispenser.next_block(nesting):
        found.append(dispenser.next_segment())
    return found


def block_lines(dispenser: Dispenser) -> Iterator[Dispenser]:
    """The same lines, each to be read, at its first word. What is wrong until the next is that line's."""
    for line in lines(dispenser):
        dispenser.inner = Dispenser(line)
        dispenser.inner.next()
        yield dispenser.inner
    dispenser.inner = None


def block_fields(dispenser: Dispenser, **known: tuple[str, Callable[[Dispenser], object]]) -> dict[str, Any]:
    """What the lines of the block that is opened here say. ``known``: by the name of a line, its field, and what reads
    it; where that is a tuple, further lines add to it.
    """
    found: dict[str, Any] = {}
    for inner in block_lines(dispenser):
        name = inner.val()
        if name not in known:
            *others, last = known
            hint = f"known are {', '.join(others)} and {last}" if others else f"known is {last}"
            raise InvalidValue(f'unknown line "{name}" in its block', hint)
        field, read = known[name]
        said = read(inner)
        if field in found and not isinstance(said, tuple):
            raise InvalidValue(f"{name} is written twice in its block", "take one of them away")
        found[field] = found[field] + said if field in found else said
    return found


def one(read: Callable[..., object], *more: object, **options: object) -> Callable[[Dispenser], object]:
    """For ``block_fields``: the line's one argument, as ``read`` understands it."""
    return lambda inner: read(argument(inner), *more, **options)


def expect_end(dispenser: Dispenser) -> None:
    """Raise ``InvalidValue`` when anything is left: an argument too many, or a block that nobody asked for."""
    if not dispenser.next():
        return
    if dispenser.token().opens:
        raise InvalidValue("takes no block")
    if not dispenser.token().closes:
        raise InvalidValue(f'unexpected "{dispenser.val()}"')
