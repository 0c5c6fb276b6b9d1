"""uWSGI: an ini file, or the same names on a command line."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from ...config.language.values import InvalidValue
from . import options
from .block import Block
from .launch import CannotImport, Launch

_ALWAYS: Final = "always so"
_TASKS: Final = "not a server's work here: a task queue, or a line `process NAME COMMAND`"
_INI: Final = ("ini", "i", "include", "inherit")
_DEEPEST: Final = 5
_FIELDS: Final = ("minute", "hour", "day", "month", "week")


def _harakiri(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    if options.number(value) != "0":
        block.put("request_timeout", options.seconds(value))


def _owner(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    user, _colon, group = str(value).partition(":")
    if user:
        block.options["socket_owner"] = (user,)
    if group:
        block.options["socket_group"] = (group,)


def _mode(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    block.mode = f"{options.octal(value) & 0o666 or 0o666:04o}" if value is not True else "0666"


def _cron(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    """``cron``: five numbers and a command; ``cron2``: ``minute=0,hour=3`` and a command. -1 is any, -5 each fifth."""
    for each in value:
        words = shlex.split(str(each))
        if "=" in words[0]:
            told = dict(part.split("=", 1) for part in words.pop(0).split(",") if "=" in part)
        else:
            told = dict(zip(_FIELDS, words, strict=False))
            words = words[5:]
        line = " ".join(_when(told.get(name, "-1")) for name in _FIELDS)
        if not words:
            raise InvalidValue("there is no command")
        block.add("schedule", f"cron{block.count('schedule') + 1}", line, *words)


def _when(text: str) -> str:
    try:
        count = int(text)
    except ValueError:
        raise InvalidValue(f"{text!r} is no number") from None
    return str(count) if count >= 0 else "*" if count == -1 else f"*/{-count}"


def _daemon(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    for each in value:
        words = shlex.split(str(each))
        if words and words[0].endswith(".pid"):  # smart-attach-daemon: what is to write it is supervised by it
            del words[0]
        block.add("process", f"daemon{block.count('process') + 1}", *words)


USES = {
    **options.later(
        "module wsgi callable wsgi_file socket http_socket http uwsgi_socket mount pypy_wsgi max_requests_delta "
        "limit_as cheaper"
    ),
    "processes": options.workers,
    "threads": options.line("threads", options.number),
    "chdir": options.line("working_dir"),
    "virtualenv": options.line("venv"),
    "pythonpath": options.python_folders,
    "env": options.variables,
    "uid": options.line("user"),
    "gid": options.line("group"),
    "chmod_socket": _mode,
    "chown_socket": _owner,
    "harakiri": _harakiri,
    "max_requests": options.max_requests,
    "max_worker_lifetime": options.line("max_lifetime", options.seconds),
    "reload_on_rss": options.line("max_memory", options.mebibytes),
    "limit_post": options.line("request_body_max_size", options.number),
    "worker_reload_mercy": options.line("grace_period", options.seconds),
    "py_autoreload": lambda block, value, _: block.put("autoreload") if str(value) != "0" else None,
    **dict.fromkeys(("cron", "cron2", "unique_cron"), _cron),
    **dict.fromkeys(("attach_daemon", "attach_daemon2", "smart_attach_daemon"), _daemon),
    **options.reasons(
        ("plugins plugin plugins_dir", "Python is all there is, by `venv` or `python_path`"),
        ("master vacuum die_on_term need_app single_interpreter enable_threads lazy_apps lazy no_orphans strict "
         "thunder_lock close_on_exec auto_procname", _ALWAYS),
        ("cheaper_algo cheaper_initial cheaper_step cheaper_overload cheaper_busyness_max cheaper_busyness_min "
         "cheaper_busyness_multiplier cheaper_busyness_penalty cheaper_busyness_verbose cheaper_rss_limit_soft "
         "idle cheap",
         "goes with `cheaper`"),
        ("master_fifo", "the admin API"),
        ("stats stats_http stats_push carbon memory_report", options.METRICS),
        ("listen", "as long as the kernel allows"),
        ("buffer_size post_buffering http_keepalive http_auto_chunked http_timeout socket_timeout so_keepalive "
         "add_header http_raw_body http_chunked_input", "built in: HTTP is spoken with Caddy, with bounds of its own"),
        ("http_websockets websocket_max_size", "WebSockets are spoken to ASGI apps, and to simple_websocket's"),
        ("static_map static_map2 static_index check_static static_safe static_expires static_gzip_all offload_threads",
         "Caddy's: `file_server`"),
        ("https_socket https", options.CADDYS),
        ("route route_uri route_host http_to", "Caddy's: `redir`, `rewrite`, `header` and matchers in its site"),
        ("logto logto2 daemonize log_format log_date logger req_logger disable_logging log_4xx log_5xx "
         "log_x_forwarded_for log_master log_maxsize log_reopen logfile_chown logfile_chmod ignore_sigpipe "
         "ignore_write_errors disable_write_exception log_slow log_micros threaded_logger", options.LOGS),
        ("pidfile pidfile2 safe_pidfile", options.SYSTEMD),
        ("procname procname_prefix procname_prefix_spaced procname_master procname_append", options.TITLE),
        ("touch_reload touch_chain_reload touch_workers_reload", "`caddysnake reload` loses no request"),
        ("emperor emperor_stats vassals_dir emperor_tyrant vassal_set",
         "`caddysnake import` reads each vassal's file; many alike are one block with a placeholder in `working_dir`"),
        ("gevent gevent_monkey_patch asyncio greenlet loop ugreen async", "requests run on threads, or the app "
            "is an ASGI app"),
        ("cache cache2", "`cache`: a store that all workers share"),
        ("spooler spooler_processes spooler_frequency spooler_max_tasks spooler_quiet mule mules farm import "
         "shared_import", _TASKS),
        ("conditional", "whether it holds is not looked at"),
        ("harakiri_verbose py_tracebacker", "the stacks of what takes too long are in the log"),
        ("hook_master_start hook_post_app hook_as_root exec_asap exec_pre_app exec_post_app exec_as_user exec_as_root "
         "exec_as_user_atexit", "commands belong into the unit, or into the deploy"),
        ("reload_mercy mule_reload_mercy evil_reload_on_rss evil_reload_on_as reload_on_as reload_on_exception max_fd "
         "cpu_affinity manage_script_name umask buffer_size_limit py_call_osafterfork "
         "py_call_uwsgi_fork_hooks wsgi_env_behaviour honour_stdin optimize no_site uwsgi_env skip_zero",
         options.NOT_NEEDED),
    ),
}  # fmt: skip

_SWITCHES = options.names(
    "master vacuum die_on_term need_app single_interpreter enable_threads lazy_apps lazy no_orphans strict "
    "thunder_lock harakiri_verbose auto_procname disable_logging log_4xx log_5xx memory_report manage_script_name "
    "http_keepalive http_auto_chunked so_keepalive ignore_sigpipe ignore_write_errors disable_write_exception "
    "gevent_monkey_patch log_x_forwarded_for log_master close_on_exec"
)
_ALIASES: Final = {
    "p": "processes", "workers": "processes", "w": "module", "H": "virtualenv", "home": "virtualenv", "venv":
    "virtualenv", "pyhome": "virtualenv", "python_path": "pythonpath", "pp": "pythonpath", "s": "socket", "M":
    "master", "d": "daemonize", "l": "listen", "t": "harakiri", "R": "max_requests", "T": "enable_threads", "L":
    "disable_logging", "b": "buffer_size", "file": "wsgi_file", "python_auto_reload": "py_autoreload",
    "py_auto_reload": "py_autoreload", "python_autoreload": "py_autoreload", "http_sock": "http_socket", "chdir2":
    "chdir", "uwsgi_sock": "uwsgi_socket", "max_worker_life": "max_worker_lifetime",
}  # fmt: skip


def _finish(block: Block, values: dict[str, Any], launch: Launch) -> None:
    app = _app(values, block)
    block.app("wsgi", app)
    for name in ("http_socket", "http", "socket", "uwsgi_socket"):
        for text in values.get(name) or []:
            path = str(text)
            is_file = ":" not in path or path.startswith(("/", "./", "@"))
            options.listen(block, f"unix:{path}" if is_file and not path.startswith("unix:") else path)
            if name.endswith("uwsgi_socket") or name == "socket":
                block.note(
                    f"uwsgi {name} {path}",
                    "HTTP is spoken, not uwsgi: in front of it `reverse_proxy`, for nginx `proxy_pass` instead "
                    "of `uwsgi_pass`",
                )
    if not block.addresses:
        options.listen(block, "127.0.0.1:8000")
        block.note("uwsgi socket", "none is named; write the one that Caddy connects to")
    least, most = (str(values.get(name) or "") for name in ("cheaper", "processes"))
    if least.isdecimal() and most.isdecimal() and 0 < int(least) < int(most):
        block.put("workers", least, most)
    elif not block.has("workers"):
        block.put("workers", "1")
    if not block.has("threads"):
        block.put("threads", "1")
        block.note(
            "uwsgi threads",
            "a worker was at one request at a time; an app that threads may share is served better with 8",
        )


def _app(values: dict[str, Any], block: Block) -> str:
    variable = str(values.get("callable") or "application")
    for mount in values.get("mount") or []:
        prefix, _, app = str(mount).partition("=")
        why = f"several apps are several blocks: `handle_path {prefix.rstrip('/')}/*` with a python block for {app}"
        block.note(f"uwsgi mount {mount}", why)
        values.setdefault("module", app)
    named = values.get("module") or values.get("wsgi")
    if named:
        module, _, given = str(named).partition(":")
        return f"{module}:{given or variable}"
    path = str(values.get("wsgi_file") or "")
    if not path:
        block.comments.append("uWSGI was given no app: write it instead of app:app.")
        return "app:app"
    folder, name = posixpath.split(path)
    if path.startswith("/"):
        if block.has("working_dir"):
            block.environ("PYTHONPATH", folder)
        else:
            block.put("working_dir", folder)
        return f"{name.removesuffix('.py')}:{variable}"
    return f"{path.removesuffix('.py').strip('./').replace('/', '.')}:{variable}"


SERVER = options.ServerOptions(
    "uwsgi",
    USES,
    _finish,
    short={
        f"-{short}" if len(short) == 1 else f"--{short.replace('_', '-')}": name for short, name in _ALIASES.items()
    },
    switches=_SWITCHES,
    many=options.names(
        "env socket http_socket http uwsgi_socket mount pythonpath static_map plugins cron unique_cron cron2 "
        "attach_daemon attach_daemon2 smart_attach_daemon mule conditional"
    ),
)


def uwsgi(block: Block, words: list[str], launch: Launch) -> None:
    """Read a command line, with the ini files that it names."""
    given: list[tuple[str, Any]] = []
    for name, value in SERVER.values(words):
        if name in _INI or (name == "app" and re.search(r"\.ini(:\w+)?$", str(value))):
            given += _ini_file(str(value), block, launch, "", 0)
        else:
            given.append((name, value))
    SERVER.carry_out(given, block, launch)


def _ini_file(value: str, block: Block, launch: Launch, beside: str, depth: int) -> list[tuple[str, Any]]:
    """What ``FILE``, ``FILE:SECTION`` or, in the file ``beside``, ``:SECTION`` says. Raises ``CannotImport``."""
    path, _, section = value.partition(":")
    found = launch.read(path or beside) if depth <= _DEEPEST else None
    if found is None:
        block.note(f"uwsgi ini {value}", "it cannot be read from here; `caddysnake import` takes it by itself too")
        return []
    given: list[tuple[str, Any]] = []
    for name, inner in ini(found[1], found[0], launch, section or "uwsgi"):
        if name in _INI:
            given += _ini_file(str(inner), block, launch, path or beside, depth + 1)
        else:
            given.append((name, inner))
    return given


def ini(text: str, file: str, launch: Launch, wanted: str = "uwsgi") -> list[tuple[str, Any]]:
    """The options of the section ``wanted``, in order; a name may come several times. Raises ``CannotImport``: a line
    is no option, or there is no such section.
    """
    path = os.path.abspath(file)
    known = {
        "d": os.path.dirname(path) + "/", "p": path, "s": os.path.basename(path),
        "n": os.path.splitext(os.path.basename(path))[0], "c": os.path.basename(os.path.dirname(path)),
    }  # fmt: skip
    found: list[tuple[str, Any]] = []
    section = condition = ""
    for at, raw in enumerate(text.splitlines(), 1):
        written = raw.strip()
        if not written or written[0] in "#;":
            continue
        if written.startswith("[") and written.endswith("]"):
            section = written[1:-1]
            continue
        if section != wanted:
            continue
        name, equals, value = (part.strip() for part in written.partition("="))
        if not name or (not equals and " " in name):
            raise CannotImport(f"{file}:{at}: {written!r} is no option (write name = value)")
        value = re.sub(r"%\((\w+)\)", lambda match: known.get(match[1], match[0]), value)
        value = re.sub(r"%([dpsnc])(?!\w)", lambda match: known[match[1]], value)
        value = re.sub(r"%d(?=[\w.])", lambda _: known["d"], value)
        value = re.sub(r"\$\((\w+)\)", lambda match: launch.environ.get(match[1], f"{{${match[1]}}}"), value)
        key = name.replace("-", "_")
        key = _ALIASES.get(key, key)
        if key.startswith("if_"):
            condition = f"{name} = {value}"
        elif key == "endif":
            condition = ""
        elif condition:
            found.append(("conditional", f"{name} = {value} (below {condition})"))
            continue
        known[name] = value
        if key in ("set", "set_placeholder", "set_ph", "for_readline", "if_env", "endif", "print"):
            inner, _, inner_value = value.partition("=")
            known[inner.strip()] = inner_value.strip()
        elif key not in USES and (name.replace("-", "_") in known or not equals) and f"%({name})" in text:
            continue  # a placeholder of the file's own
        elif key in _SWITCHES or not equals:
            found.append((key, value or True))
        else:
            found.append((key, value))
    if not any(line.strip() == f"[{wanted}]" for line in text.splitlines()):
        raise CannotImport(
            f"{file}: there is no section [{wanted}] in it (name the ini file that uWSGI is started with)"
        )
    return found
