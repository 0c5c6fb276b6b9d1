"""gunicorn: its command line, its environment, and its configuration, which is a Python file of which only literals
are read.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Mapping
from typing import Any

from . import options
from .block import Block
from .launch import CannotImport, Launch

CONFIG = "gunicorn.conf.py"
_HOOK = (
    "hooks are not called: what it does for each worker, the app may do when it is imported, for that is after the fork"
)
_ASGI = ("uvicorn", "asgi")
_GREEN_THREADS = "64"


def _class(block: Block, value: Any, values: Mapping[str, Any]) -> None:
    name = str(value)
    if name in ("gevent", "eventlet", "gevent_pywsgi", "gevent_wsgi", "tornado") or "gevent" in name:
        wanted = str(values.get("worker_connections") or 1000)
        block.put("threads", _GREEN_THREADS)
        why = (
            f"requests run on threads here, {_GREEN_THREADS} at a time in each worker where it had {wanted} green "
            "ones: more with `threads`, or an ASGI app for very many; take monkey patching out of the app"
        )
        block.note(f"gunicorn worker_class {name}", why)
    elif "trio" in name:
        block.note(f"gunicorn worker_class {name}", "apps run on asyncio, with uvloop or without")


def _timeout(block: Block, value: Any, values: Mapping[str, Any]) -> None:
    text = options.seconds(value)
    if text == "0s":
        return
    if str(values.get("worker_class") or "sync") == "sync" and str(values.get("threads") or "1") == "1":
        block.put("request_timeout", text)
    else:
        block.note(
            f"gunicorn timeout {value}",
            "it was about workers that hang, not about requests; a hanging one is told here with its stacks, and "
            f"`request_timeout {text}` would end requests",
        )


USES = {
    **options.COMMON,
    **options.GUNICORNS,
    "threads": options.line("threads", options.number),
    "worker_class": _class,
    "timeout": _timeout,
    "chdir": options.line("working_dir"),
    "pythonpath": options.python_folders,
    "raw_env": options.variables,
    "reload": options.switch("autoreload"),
    **options.later("bind forwarded_allow_ips wsgi_app max_requests_jitter"),
    "reload_extra_files": options.watch,
    **options.reasons(
        ("config paste raw_paste_global_conf", "read by gunicorn alone; name the app as module:variable"),
        ("worker_connections", "connections cost next to nothing; `max_queue` bounds those that wait for a worker"),
        ("limit_request_line limit_request_fields limit_request_field_size", options.BUILT_IN),
        ("preload_app", "each worker imports the app itself; `preload` names modules, a framework say, that are "
            "shared"),
        ("worker_tmp_dir tmp_upload_dir reuse_port sendfile no_sendfile initgroups", options.NOT_NEEDED),
        ("reload_engine", "inotify, where there is one"),
        ("check_config print_config print_config_and_exit", "`caddysnake validate`, `caddysnake adapt`"),
        ("spew", options.NOT_NEEDED),
        ("daemon", "`caddysnake systemd` writes units, or a container runs it"),
        ("secure_scheme_headers forwarder_headers header_map", "X-Forwarded-* of a trusted proxy are read, as "
            "Caddy sends them"),
        ("proxy_protocol proxy_allow_ips", "Caddy's: the listener wrapper proxy_protocol"),
        ("permit_obsolete_folding strip_header_spaces permit_unconventional_http_method casefold_http_method "
         "permit_unconventional_http_version", "HTTP is read strictly, and by Caddy first"),
        ("on_starting on_reload when_ready pre_fork post_fork post_worker_init worker_int worker_abort pre_exec "
         "pre_request post_request child_exit worker_exit nworkers_changed on_exit", _HOOK),
        ("control_socket control_socket_mode no_control_socket control_socket_disable", "`caddysnake status`, "
            "the admin API"),
    ),
}  # fmt: skip


def _finish(block: Block, values: dict[str, Any], launch: Launch) -> None:
    app = str(values.get("app") or values.get("wsgi_app") or "")
    kind = str(values.get("worker_class") or "sync")
    if not app:
        block.comments.append(
            f"{CONFIG} does not name the app, gunicorn's command line does: write it instead of app:app."
        )
        app = "app:app"
    elif ":" not in app:
        app += ":application"
    block.app("asgi" if any(part in kind.lower() for part in _ASGI) else "wsgi", app)
    if block.has("module_asgi") and block.has("threads"):
        block.drop("threads")
        block.note("gunicorn threads", "an ASGI app runs on one event loop in each worker")
    binds = [str(each) for each in (values.get("bind") or [])] or [""]
    for text in [part for each in binds for part in (options.listed(each) or [""])]:
        port = launch.environ.get("PORT") or ("{$PORT:8000}" if launch.is_port_given else "")
        options.listen(block, text or (f"0.0.0.0:{port}" if port else "127.0.0.1:8000"))
    if any(address.startswith("unix/") for address in block.addresses) and block.mode is None:
        block.mode = "0666"
        block.note("gunicorn umask", "its socket was open to all users, and still is; |0660 in the address is narrower")
    options.trust(block, values.get("forwarded_allow_ips") or launch.environ.pop("FORWARDED_ALLOW_IPS", None))
    if not block.has("workers"):
        block.put(
            "workers", launch.environ.pop("WEB_CONCURRENCY", "{$WEB_CONCURRENCY:1}" if launch.is_port_given else "1")
        )
    if block.has("module_wsgi") and not block.has("threads"):
        block.put("threads", "1")
        block.note(
            "gunicorn threads",
            "a sync worker is at one request at a time; an app that threads may share is served better with 8",
        )


SERVER = options.ServerOptions(
    "gunicorn",
    USES,
    _finish,
    short={
        "-c": "config", "-b": "bind", "-w": "workers", "-k": "worker_class", "-t": "timeout", "-u": "user",
        "-g": "group", "-m": "umask", "-n": "proc_name", "--name": "proc_name", "-p": "pidfile", "--pid": "pidfile",
        "-D": "daemon", "-e": "raw_env", "--env": "raw_env", "--preload": "preload_app", "--keep-alive": "keepalive",
        "--log-level": "loglevel", "--log-file": "errorlog", "--error-logfile": "errorlog",
        "-R": "enable_stdio_inheritance",
        "--access-logfile": "accesslog", "--access-logformat": "access_log_format", "--log-syslog": "syslog",
        "--log-syslog-to": "syslog_addr", "--log-syslog-prefix": "syslog_prefix", "--log-config": "logconfig",
        "--reload-extra-file": "reload_extra_files", "--no-sendfile": "sendfile", "--log-config-json": "logconfig_json",
        "--log-syslog-facility": "syslog_facility",
    },
    switches=options.names(
        "reload preload_app daemon spew check_config print_config initgroups reuse_port capture_output syslog sendfile "
        "enable_stdio_inheritance proxy_protocol do_handshake_on_connect suppress_ragged_eofs permit_obsolete_folding "
        "strip_header_spaces permit_unconventional_http_method permit_unconventional_http_version casefold_http_method "
        "disable_redirect_access_to_syslog no_control_socket enable_backlog_metric"
    ),
    many=frozenset({"bind", "raw_env", "reload_extra_files", "pythonpath"}),
)  # fmt: skip


def gunicorn(block: Block, words: list[str], launch: Launch) -> None:
    """Read a command line, with what its environment and its configuration add."""
    on_line = list(SERVER.values(words))
    from_environ = list(SERVER.values(shlex.split(launch.environ.pop("GUNICORN_CMD_ARGS", ""))))
    named = next((str(value) for name, value in reversed([*from_environ, *on_line]) if name == "config"), None)
    config: list[tuple[str, Any]] = []
    if named is not None and named.startswith("python:"):
        named = named.removeprefix("python:").replace(".", "/") + ".py"
    found = launch.read((named or f"./{CONFIG}").removeprefix("file:"))
    if found is not None:
        config = list(literals(found[1], found[0], block))
    elif named is not None:
        block.note(
            f"gunicorn config {named}", "it cannot be read from here; `caddysnake import` takes it by itself too"
        )
    given: list[tuple[str, Any]] = []
    for source in (config, from_environ, on_line):
        said = {name for name, _ in source}  # a list, too, is the last source's alone
        given = [each for each in given if each[0] not in said] + [each for each in source if each[0] != "config"]
    SERVER.carry_out(given, block, launch)


def literals(text: str, file: str, block: Block) -> list[tuple[str, Any]]:
    """The settings whose values are literals; all else becomes comments. Raises ``CannotImport``: no Python."""
    try:
        tree = ast.parse(text, file)
    except (SyntaxError, ValueError) as exc:
        where = f"{file}:{exc.lineno}" if isinstance(exc, SyntaxError) else file
        reason = exc.msg if isinstance(exc, SyntaxError) else str(exc)
        raise CannotImport(f"{where}: {reason} (the file must be valid Python; it is read, not run)") from None
    found: list[tuple[str, Any]] = []
    for node in [each for statement in tree.body for each in _single(statement)]:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                try:
                    read = ast.literal_eval(value)
                except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                    _unread(node, text, file, block)
                    continue
                if name in USES:
                    found.append((name, read))
                elif not name.startswith("_"):
                    block.note(f"{name} = {ast.unparse(value)}", f"{file}:{node.lineno}: no setting of gunicorn's")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                block.note(f"def {name}", f"{file}:{node.lineno}: {_HOOK if name in USES else 'code is not run'}")
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case _:
                _unread(node, text, file, block)
    return found


def _single(node: ast.stmt) -> list[ast.stmt]:
    """``a, b = 1, 2`` and ``a = b = 1`` as assignments of one name each."""
    if not isinstance(node, ast.Assign):
        return [node]
    pairs = [(target, node.value) for target in node.targets]
    match node:
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=given)) if len(names) == len(given):
            pairs = list(zip(names, given, strict=True))
    return [ast.copy_location(ast.Assign([target], value), node) for target, value in pairs]


def _unread(node: ast.stmt, text: str, file: str, block: Block) -> None:
    source = ast.get_source_segment(text, node) or ast.unparse(node)
    first, *more = source.splitlines()
    hint = ""
    if first.partition("=")[0].strip() == "workers":
        hint = "; `workers auto`, one for each core, is the default here"
        block.put("workers", "auto")
    block.note(first + (" ..." if more else ""), f"{file}:{node.lineno}: no literal, and the file is not run{hint}")
