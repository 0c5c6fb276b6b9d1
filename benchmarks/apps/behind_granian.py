"""The app that BENCHMARK_APP names, as granian has it behind a proxy: in its wrapper that reads who the client is."""

from __future__ import annotations

import os
from importlib import import_module

from granian.utils.proxies import wrap_asgi_with_proxy_headers, wrap_wsgi_with_proxy_headers

_module, _, _name = os.environ["BENCHMARK_APP"].partition(":")
_wrap = {"asgi": wrap_asgi_with_proxy_headers, "wsgi": wrap_wsgi_with_proxy_headers}[os.environ["BENCHMARK_INTERFACE"]]
app = _wrap(getattr(import_module(_module), _name), trusted_hosts="*")
