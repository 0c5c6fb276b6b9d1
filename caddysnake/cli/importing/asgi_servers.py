"""uvicorn, granian and hypercorn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...config.language.values import InvalidValue
from . import options
from .block import Block
from .launch import CannotImport, Launch

_HTTP = "HTTP/1.1 between Caddy and here; Caddy speaks HTTP/2 and HTTP/3"


def _loop(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    if value == "asyncio":
        block.put("runtime", "native")
    elif value not in ("auto", "uvloop", "none"):
        raise InvalidValue("apps run on uvloop, or with `runtime native` on asyncio's own loop")


def _env_files(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    for path in options.listed(value):
        block.add("env_file", path)


def _mode(block: Block, value: Any, _: Mapping[str, Any]) -> None:
    block.mode = f"{options.octal(value) & 0o666:04o}"


def _ping(block: Block, value: Any, values: Mapping[str, Any]) -> None:
    timeout = values.get("ws_ping_timeout")
    interval = options.seconds(value)
    if interval == "0s":
        block.put("websocket_ping", "off")
    else:
        block.put("websocket_ping", interval, *([options.seconds(timeout)] if timeout else []))


def _address(block: Block, values: Mapping[str, Any], mode: str | None) -> None:
    if values.get("uds"):
        options.listen(block, f"unix:{values['uds']}")
        block.mode = mode
    elif values.get("fd"):
        block.addresses.append(f"fd/{values['fd']}")
    else:
        host = str(values.get("host") or "127.0.0.1")
        host = f"[{host}]" if ":" in host and not host.startswith("{$") else host
        options.listen(block, f"{host}:{values.get('port') or 8000}")


def _workers(block: Block, launch: Launch) -> None:
    if not block.has("workers"):
        block.put("workers", launch.environ.pop("WEB_CONCURRENCY", "1"))


def _app(block: Block, values: Mapping[str, Any], server: str, default: str = "app") -> None:
    app = str(values.get("app") or "")
    if not app:
        block.comments.append(f"{server} was given no app: write it instead of app:app.")
        app = "app:app"
    elif ":" not in app:
        app += f":{default}"
    if values.get("factory") and not app.endswith("()"):
        app += "()"
    interface = str(values.get("interface") or "asgi")
    block.app("wsgi" if interface == "wsgi" else "asgi", app)
    if interface in ("asgi2", "rsgi"):
        block.note(f"{server} interface {interface}", "not spoken here: the app must offer ASGI 3, or WSGI")


def _finish_uvicorn(block: Block, values: dict[str, Any], launch: Launch) -> None:
    _app(block, values, "uvicorn")
    _address(block, values, "0666")
    _workers(block, launch)
    if values.get("proxy_headers", True):
        said = values.get("forwarded_allow_ips") or launch.environ.pop("FORWARDED_ALLOW_IPS", None)
        options.trust(block, said, "127.0.0.1")


UVICORN = options.ServerOptions(
    "uvicorn",
    {
        **options.COMMON,
        **options.later(
            "host port uds fd factory interface proxy_headers forwarded_allow_ips ws_ping_timeout "
            "limit_max_requests_jitter entrypoint"
        ),
        "workers": options.workers,
        "loop": _loop,
        "lifespan": options.line("lifespan"),
        "env_file": _env_files,
        "app_dir": lambda block, value, _: None if value in (".", "") else block.environ("PYTHONPATH", str(value)),
        "reload": options.switch("autoreload"),
        "reload_include": options.watch,
        "log_level": options.level,
        "access_log": options.switch("log"),
        "limit_max_requests": options.max_requests,
        "limit_concurrency": lambda block, value, _: block.put("max_queue", options.number(value)),
        "timeout_graceful_shutdown": options.grace,
        "ws_max_size": options.line("websocket_max_size", options.number),
        "ws_ping_interval": _ping,
        **options.reasons(
            ("timeout_worker_healthcheck", "a worker may be busy for minutes and be healthy; one that hangs is "
                "told in the log"),
            ("http", "always httptools"),
            ("ws ws_per_message_deflate", "WebSockets are built in, with compression where the client asks for it"),
            ("ws_max_queue", "a client that sends too fast is not read until the app has caught up"),
            ("h11_max_incomplete_event_size", options.BUILT_IN),
            ("server_header date_header header", "Caddy's: `header` in its site"),
            ("reset_contextvars", "each request has a context of its own"),
        ),
    },
    _finish_uvicorn,
    switches=options.names(
        "reload factory access_log use_colors proxy_headers server_header date_header reset_contextvars"
    ),
    many=frozenset({"reload_include", "reload_dir", "reload_exclude", "header"}),
    environment="UVICORN_",
)  # fmt: skip


def _finish_granian(block: Block, values: dict[str, Any], launch: Launch) -> None:
    interface = str(values.get("interface") or "rsgi")
    values["interface"] = "asgi" if interface == "asginl" else interface
    if interface == "asginl":
        block.put("lifespan", "off")
    _app(block, values, "granian")
    _address(block, values, block.mode)
    _workers(block, launch)
    if values.get("blocking_threads") and block.has("module_wsgi"):
        block.put("threads", options.number(values["blocking_threads"]))


GRANIAN = options.ServerOptions(
    "granian",
    {
        **options.COMMON,
        **options.later("host port uds factory interface blocking_threads"),
        "uds_permissions": _mode,
        "workers": options.workers,
        "loop": _loop,
        "working_dir": options.line("working_dir"),
        "env_files": _env_files,
        "reload": options.switch("autoreload"),
        "log_level": options.level,
        "access_log": options.switch("log"),
        "backpressure": lambda block, value, _: block.put("max_queue", options.number(value)),
        "workers_lifetime": options.line("max_lifetime", options.seconds),
        "workers_max_rss": options.line("max_memory", options.mebibytes),
        "workers_kill_timeout": options.grace,
        **options.reasons(
            ("runtime_threads runtime_mode runtime_blocking_threads blocking_threads_idle_timeout task_impl",
             "granian's own runtime; `threads` is for WSGI"),
            ("http http1_buffer_size http1_header_read_timeout http1_keep_alive http1_pipeline_flush "
             "http2_adaptive_window http2_initial_connection_window_size http2_initial_stream_window_size "
             "http2_keep_alive_interval http2_keep_alive_timeout http2_max_concurrent_streams http2_max_frame_size "
             "http2_max_headers_size http2_max_send_buffer_size", _HTTP),
            ("ws", "WebSockets are always spoken where the app accepts them"),
            ("log", options.LOGS),
            ("metrics metrics_address metrics_port metrics_scrape_interval", options.METRICS),
            ("respawn_failed_workers respawn_interval rss_sample_interval rss_samples", "workers that die are "
                "always replaced, with back-off"),
            ("static_path_route static_path_mount static_path_expires static_path_dir_to_file", "Caddy's: "
                "`file_server`"),
        ),
    },
    _finish_granian,
    switches=options.names(
        "reload factory access_log ws log respawn_failed_workers http1_keep_alive http1_pipeline_flush "
        "http2_adaptive_window ssl_client_verify metrics reload_ignore_worker_failure"
    ),
    many=frozenset({"env_files", "reload_paths"}),
    environment="GRANIAN_",
)  # fmt: skip


def _finish_hypercorn(block: Block, values: dict[str, Any], launch: Launch) -> None:
    app = str(values.get("app") or values.get("application_path") or "")
    kind, colon, rest = app.partition(":")
    if kind in ("asgi", "wsgi") and colon and ":" in rest:
        values["interface"], app = kind, rest
    _app(block, {**values, "app": app}, "hypercorn")
    for text in options.listed(values.get("bind") or "") or ["127.0.0.1:8000"]:
        options.listen(block, text)
    _workers(block, launch)


HYPERCORN = options.ServerOptions(
    "hypercorn",
    {
        **options.COMMON,
        **options.GUNICORNS,
        **options.later("bind application_path config max_requests_jitter"),
        "worker_class": _loop,
        "use_reloader": options.switch("autoreload"),
        "websocket_ping_interval": _ping,
        "websocket_max_message_size": options.line("websocket_max_size", options.number),
        **options.reasons(
            ("insecure_bind quic_bind alt_svc_headers alpn_protocols include_server_header include_date_header "
             "h2_max_concurrent_streams h2_max_header_list_size h2_max_inbound_frame_size", _HTTP),
            ("server_names", "hosts are Caddy's, or those of the site"),
            ("debug", "the global option `debug`"),
            ("startup_timeout shutdown_timeout", "`start_timeout` is for the whole start; the lifespan has ten "
                "seconds to end"),
            ("h11_max_incomplete_size h11_pass_raw_headers max_app_queue_size wsgi_max_body_size", options.BUILT_IN),
        ),
    },
    _finish_hypercorn,
    short={
        "-b": "bind", "-c": "config", "-w": "workers", "-k": "worker_class", "-g": "group", "-u": "user", "-m": "umask",
        "-p": "pid_path", "--pid": "pid_path", "--access-logfile": "accesslog", "--access-log": "accesslog",
        "--access-logformat": "access_log_format", "--error-logfile": "errorlog", "--error-log": "errorlog",
        "--log-file": "errorlog", "--log-level": "loglevel", "--log-config": "logconfig", "--reload": "use_reloader",
        "--keep-alive": "keep_alive_timeout", "--server-name": "server_names",
    },
    switches=frozenset({"use_reloader", "debug"}),
    many=frozenset({"bind", "insecure_bind", "quic_bind", "server_names"}),
)  # fmt: skip


def hypercorn(block: Block, words: list[str], launch: Launch) -> None:
    """Read a command line, with what its configuration adds."""
    import tomllib

    given = list(HYPERCORN.values(words))
    config: list[tuple[str, Any]] = []
    for name in [str(value) for name, value in given if name == "config"]:
        found = launch.read(name.removeprefix("file:"))
        if found is None or not found[0].endswith(".toml"):
            block.note(f"hypercorn config {name}", "only a TOML file that is there can be read from here")
            continue
        try:
            config += tomllib.loads(found[1]).items()
        except tomllib.TOMLDecodeError as exc:
            raise CannotImport(f"{found[0]}: {exc} (the file must be valid TOML)") from None
    HYPERCORN.carry_out([*config, *given], block, launch)


def fastapi(block: Block, words: list[str], launch: Launch) -> None:
    """Read ``fastapi run PATH``, which starts uvicorn."""
    given = list(UVICORN.values(["--entrypoint" if each == "-e" else each for each in words[1:]]))
    values = dict(given)
    path = str(values.get("app") or "main.py")
    module = path.removesuffix(".py").strip("./").replace("/", ".")
    app = str(values.get("entrypoint") or f"{module}:app")
    if "entrypoint" not in values:
        block.note("fastapi run", f"the app was looked for in {path}; if it has another name than app, write it")
    rest = [each for each in given if each[0] != "app"]
    UVICORN.carry_out([("host", "0.0.0.0"), *rest, ("app", app)], block, launch)
