"""The options of a server: how its command line and its environment are read, and what becomes of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ...config.language.values import InvalidValue, duration
from .block import VARIABLE, Block
from .launch import Launch

Use = Callable[[Block, Any, Mapping[str, Any]], None]
"""Puts a value into the block; also gets all values, by name."""

CADDYS: Final = "TLS is Caddy's: its site gets certificates by itself, or `tls CERT KEY`"
BUILT_IN: Final = "built in: heads have bounds of their own"
NOT_NEEDED: Final = "not needed here"
LOGS: Final = "the daemon's log has the output of all apps, in JSON or console style: the global option `log`"
SYSTEMD: Final = "none is written: systemd, or `caddysnake status`, knows the process"
METRICS: Final = "GET /metrics of the admin API has them, for Prometheus"
_PORT: Final = "8000"
TITLE: Final = "processes are titled after the app"


@dataclass
class ServerOptions:
    """What is known of one server."""

    name: str
    uses: dict[str, Use | str]
    """What becomes of an option, by its name; a text is why it has no counterpart."""
    finish: Callable[[Block, dict[str, Any], Launch], None]
    """Called behind all options, with their values and the app as ``app``."""
    short: dict[str, str] = field(default_factory=dict)
    """``-w``, and flags with another name than the option's, to the option."""
    switches: frozenset[str] = frozenset()
    """Options that take no value."""
    many: frozenset[str] = frozenset()
    """Options that may be given several times: their value is a list."""
    environment: str = ""
    """What names of variables begin with that set options; empty: none do."""

    def option(self, flag: str) -> str:
        """The name of the option that ``flag`` sets."""
        return self.short.get(flag) or flag.lstrip("-").replace("-", "_")

    def values(self, words: list[str]) -> Iterator[tuple[str, Any]]:
        """Each option on a command line with its value; a word that is none as ``app``."""
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if not word.startswith("-") or word == "-":
                yield "app", word
                continue
            flag, equals, value = word.partition("=")
            if not word.startswith("--") and len(word) > 2 and word[:2] in self.short and word not in self.short:
                flag, equals, value = word[:2], "=", word[2:].removeprefix("=")
            name = self.option(flag)
            if name in self.switches:
                yield name, value if equals else True
            elif equals:
                yield name, value
            elif name.startswith("no_") and name[3:] in self.switches:
                yield name[3:], False
            elif name not in self.uses:
                # Unknown: whatever cannot be the app belongs to it.
                yield name, rest.pop(0) if rest and not rest[0].startswith("-") and ":" not in rest[0] else True
            else:
                yield name, rest.pop(0) if rest else ""

    def environ_values(self, environ: dict[str, str]) -> Iterator[tuple[str, Any]]:
        """The options that the environment sets. They leave it: the app has no use for them."""
        if not self.environment:
            return
        for variable in [each for each in environ if each.startswith(self.environment)]:
            name = variable.removeprefix(self.environment).lower()
            if name in self.uses or name == "app":
                yield name, environ.pop(variable)

    def read(self, block: Block, words: list[str], launch: Launch) -> None:
        """Put what a command line says into ``block``, with what its environment adds."""
        self.carry_out([*self.environ_values(launch.environ), *self.values(words)], block, launch)

    def carry_out(self, given: list[tuple[str, Any]], block: Block, launch: Launch) -> None:
        """Put all options that were ``given``, the later ones first in rank, into ``block``."""
        found: dict[str, Any] = {}
        is_app_known = any(name == "app" and not str(value).startswith(VARIABLE) for name, value in given)
        for name, value in given:
            if name in self.many:
                found[name] = [*found.get(name, []), *several(value)]
            elif name in self.switches:
                found[name] = is_on(value)
            elif name == "app" and is_app_known and str(value).startswith(VARIABLE):
                block.note(str(value), "its value is not known here: write the lines that its options stand for")
            else:
                found[name] = value
        for name, value in found.items():
            use = self.uses.get(name)
            if name == "app" or value is None:
                continue
            why = use if isinstance(use, str) else "not known here" if use is None else ""
            if callable(use):
                try:
                    use(block, value, found)
                except ValueError as exc:
                    why = str(exc)
            if why:
                block.note(shown(self.name, name, value), why)
        self.finish(block, found, launch)


def reasons(*groups: tuple[str, str]) -> dict[str, Use | str]:
    """Names, with blanks between them, and why they have no counterpart."""
    return {name: why for names, why in groups for name in names.split()}


COMMON: Final = reasons(
    ("backlog", "as long as the kernel allows"),
    ("ca_certs cert_reqs certfile ciphers do_handshake_on_connect http_protocols keyfile keyfile_password ssl_ca "
     "ssl_ca_certs ssl_cert_reqs ssl_certfile ssl_certificate ssl_ciphers ssl_client_verify ssl_context ssl_keyfile "
     "ssl_handshake_timeout ssl_keyfile_password ssl_protocol_min ssl_version suppress_ragged_eofs verify_flags "
     "verify_mode ssl_crl", CADDYS),
    ("access_log_fmt access_log_format capture_output disable_redirect_access_to_syslog enable_stdio_inheritance "
     "log_config logconfig logconfig_dict logconfig_json logger_class syslog syslog_addr syslog_facility syslog_prefix "
     "use_colors errorlog", LOGS),
    ("keepalive keep_alive timeout_keep_alive keep_alive_timeout keep_alive_max_requests read_timeout",
     "an idle connection of Caddy's is never closed from here"),
    ("pidfile pid_file pid_path", SYSTEMD),
    ("proc_name default_proc_name process_name", TITLE),
    ("reload_delay reload_dir reload_exclude reload_ignore_dirs reload_ignore_paths reload_ignore_patterns reload_tick "
     "reload_ignore_worker_failure reload_paths", "`autoreload` watches `working_dir`, and knows what is no code"),
    ("root_path url_path_prefix",
     "write `handle_path PREFIX/*` around the block in Caddy's site: the app is told what it takes off"),
    ("statsd_host statsd_prefix dogstatsd_tags enable_backlog_metric", METRICS),
)  # fmt: skip
"""Of several servers."""


def names(text: str) -> frozenset[str]:
    """Names with blanks between them."""
    return frozenset(text.split())


def shown(server: str, name: str, value: Any) -> str:
    """An option as a comment has it."""
    if value is True:
        return f"{server} {name}"
    text = " ".join(map(str, several(value)))
    return f"{server} {name} {text if len(text) <= 80 else text[:77] + '...'}"


def is_on(value: Any) -> bool:
    """A switch's value, as servers read text."""
    return str(value).strip().lower() not in ("false", "0", "no", "off", "none", "")


def with_default(text: str, default: str) -> str:
    """``text``, with a default when it is a variable without one."""
    return f"{text[:-1]}:{default}}}" if re.fullmatch(r"\{\$\w+\}", text) else text


def number(value: Any) -> str:
    """A count. Raises ``InvalidValue``."""
    text = str(value).strip()
    if text.startswith(VARIABLE) and ":" not in text:
        raise InvalidValue("the variable's value is not known here: write it")
    if text.isdecimal() or text.startswith(VARIABLE):
        return text
    raise InvalidValue("not a number")


def workers(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    """Use how many workers there are; what a shell would count is left to us. Raises ``InvalidValue``."""
    if re.search(r"\$\(|`|%k", str(value)):
        block.put("workers", "auto")
        raise InvalidValue("nothing is run to count; `workers auto` is one for each core")
    block.put("workers", number(with_default(str(value).strip(), "auto")))


def seconds(value: Any) -> str:
    """A duration. Raises ``InvalidValue``."""
    text = str(value).strip()
    if text.startswith(VARIABLE):
        return f"{number(text)}s"
    try:
        return f"{float(text):g}s"
    except ValueError:
        duration(text)
        return text


def mebibytes(value: Any) -> str:
    """A size. Raises ``InvalidValue``."""
    return f"{number(value)}MiB"


def later(text: str) -> dict[str, Use | str]:
    """Names, with blanks between them, whose values ``finish`` or another option looks at."""
    return dict.fromkeys(text.split(), lambda *_: None)


def watch(block: Block, value: Any, values: Mapping[str, Any]) -> None:
    """Use what files a reloader looks at besides."""
    files = listed(value)
    if files and values.get("reload"):
        block.put("autoreload", "{\nwatch " + " ".join(files) + "\n}")


def variables(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    """Use variables of the app's environment. Raises ``InvalidValue``."""
    for each in several(value):
        name, equals, text = str(each).partition("=")
        if not equals:
            raise InvalidValue("not NAME=VALUE")
        block.environ(name.strip(), text.strip())


def umask(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    """Use what is taken off the mode of sockets."""
    block.mode = f"{0o666 & ~(value if isinstance(value, int) else octal(value)):04o}"


def octal(value: Any) -> int:
    """A mode. Raises ``InvalidValue``."""
    try:
        return int(str(value), 8)
    except ValueError:
        raise InvalidValue("not octal digits") from None


def line(name: str, read: Callable[[Any], str] = str) -> Use:
    """The value is the argument of one subdirective."""
    return lambda block, value, _: block.put(name, read(value))


def switch(name: str) -> Use:
    """A subdirective where the switch is on."""
    return lambda block, value, _: block.put(name) if value else None


def max_requests(block: Block, value: Any, values: Mapping[str, Any]) -> None:
    """Use a count where 0 means none. Raises ``InvalidValue``."""
    jitter = str(values.get(f"{'limit_' if 'limit_max_requests' in values else ''}max_requests_jitter") or "0")
    if number(value) != "0":
        block.put("max_requests", number(value), *([number(jitter)] if jitter != "0" else []))


def grace(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    """Use a time for requests that still run at the end."""
    text = seconds(value)
    if text == "0s":
        raise InvalidValue("something must end the wait: `grace_period` is longer than nothing")
    block.put("grace_period", text)


def level(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    """Use the level of a server's log."""
    names = {"warning": "WARN", "critical": "ERROR", "trace": "DEBUG", "warn": "WARN"}
    text = names.get(str(value).lower(), str(value).upper())
    if text not in ("DEBUG", "INFO", "WARN", "ERROR"):
        raise InvalidValue("the levels of the global option `log` are DEBUG, INFO, WARN and ERROR")
    if text != "INFO":
        block.options["log"] = (f"{{\nlevel {text}\n}}",)


def listed(value: Any) -> list[str]:
    """Words with commas between, or a list."""
    return [part.strip() for item in several(value) for part in str(item).split(",") if part.strip()]


def several(value: Any) -> Sequence[Any]:
    """A list, or the one value as one."""
    return value if isinstance(value, list | tuple) else [value]


def python_folders(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    """Folders that modules are looked for in."""
    block.environ("PYTHONPATH", ":".join(listed(value)))


def trust(block: Block, value: Any, default: str = "127.0.0.1,::1") -> None:
    """Whose forwarded fields are believed: says something on TCP only."""
    if all(address.startswith(("unix/", "fd/")) for address in block.addresses):
        return
    ranges = listed(default if value is None else value)
    if "*" in ranges:
        ranges = ["0.0.0.0/0", "::/0"]
    block.options["trusted_proxies"] = tuple(ranges)


def listen(block: Block, text: str) -> None:
    """An address as Python servers write it. Raises ``InvalidValue``."""
    text = text.removeprefix("tcp://").removeprefix("http://")
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if path.startswith("@"):
            block.note(text, "an abstract socket has no owner and no mode: this one is a file")
            path = f"/run/{path[1:]}.sock"
        block.addresses.append(f"unix/{'/' + path.lstrip('/') if path.startswith('/') else path}")
    elif text.startswith("fd://"):
        block.addresses.append(f"fd/{text.removeprefix('fd://')}")
    else:
        if re.fullmatch(r"\{\$\w+\}", text) and "PORT" not in text:
            block.addresses.append(f"tcp/{with_default(text, f'127.0.0.1:{_PORT}')}")
            return
        host, colon, given = text.rpartition(":") if not text.endswith("]") else ("", "", "")
        if VARIABLE in text:
            host, colon, given = text.partition(":")
            if host.startswith("{$") and not given.startswith("{"):
                host, colon, given = "0.0.0.0", ":", text
            host, given = with_default(host, "127.0.0.1"), with_default(given, _PORT)
        if not colon:
            host, given = text, _PORT
        host = host or "0.0.0.0"
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        block.addresses.append(f"tcp/{host}:{given or _PORT}")


GUNICORNS: Final[dict[str, Use | str]] = {
    "workers": workers,
    "max_requests": max_requests,
    "graceful_timeout": grace,
    "user": line("user"),
    "group": line("group"),
    "umask": umask,
    "accesslog": switch("log"),
    "loglevel": level,
}
"""Of gunicorn and of hypercorn, which has its names."""
