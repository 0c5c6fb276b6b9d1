"""What other servers, and other parts of a Caddyfile, call things that are written otherwise here."""

from __future__ import annotations

from typing import Final

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
    "write schedule NAME \"CRON\" COMMAND": "cron timer",
    "write release COMMAND": "migrate before_start pre_start",
    "write affinity cookie": "sticky sticky_sessions",
}

ELSEWHERE: Final = {
    word.replace("_", ""): what for what, words in _WORDS.items() for word in words.split()
}
"""Words without ``_``, each with what to write."""
