"""Short placeholders such as ``{host}`` and the full names they stand for.

They exist in a Caddyfile only, in exactly this spelling; everything behind the parser sees full names.
"""

from __future__ import annotations

import re

_SAME = "host hostport port method scheme uuid uri orig_method orig_uri remote"
_PLAIN = {name: f"http.request.{name}" for name in _SAME.split()} | {
    "path": "http.request.uri.path",
    "dir": "http.request.uri.path.dir",
    "file": "http.request.uri.path.file",
    "file.base": "http.request.uri.path.file.base",
    "file.ext": "http.request.uri.path.file.ext",
    "query": "http.request.uri.query",
    "?query": "http.request.uri.prefixed_query",
    "%uri": "http.request.uri_escaped",
    "%path": "http.request.uri.path_escaped",
    "%query": "http.request.uri.query_escaped",
    "orig_path": "http.request.orig_uri.path",
    "orig_dir": "http.request.orig_uri.path.dir",
    "orig_file": "http.request.orig_uri.path.file",
    "orig_query": "http.request.orig_uri.query",
    "orig_?query": "http.request.orig_uri.prefixed_query",
    "remote_host": "http.request.remote.host",
    "remote_port": "http.request.remote.port",
    "client_ip": "http.vars.client_ip",
    "tls_cipher": "http.request.tls.cipher_suite",
    "tls_version": "http.request.tls.version",
    "tls_client_fingerprint": "http.request.tls.client.fingerprint",
    "tls_client_issuer": "http.request.tls.client.issuer",
    "tls_client_serial": "http.request.tls.client.serial",
    "tls_client_subject": "http.request.tls.client.subject",
    "tls_client_certificate_pem": "http.request.tls.client.certificate_pem",
    "tls_client_certificate_der_base64": "http.request.tls.client.certificate_der_base64",
    "upstream_hostport": "http.reverse_proxy.upstream.hostport",
}

# With a tail of letters, digits, - and _.
_WITH_WORD = {
    "header": "http.request.header",
    "cookie": "http.request.cookie",
    "labels": "http.request.host.labels",
    "path": "http.request.uri.path",
    "query": "http.request.uri.query",
    "vars": "http.vars",
    "file_match": "http.matchers.file",
}

# With a tail that may hold dots as well.
_WITH_PATH = {"re": "http.regexp", "rp": "http.reverse_proxy", "resp": "http.intercept", "err": "http.error"}

_FULL_PREFIXES = _WITH_WORD | _WITH_PATH

_SHORT = re.compile(
    rf"\{{(?:(?P<plain>{'|'.join(map(re.escape, _PLAIN))})"
    rf"|(?P<word>{'|'.join(_WITH_WORD)})\.(?P<word_tail>[A-Za-z0-9_-]*)"
    rf"|(?P<path>{'|'.join(_WITH_PATH)})\.(?P<path_tail>[A-Za-z0-9_.-]*))\}}"
)


def expand(text: str) -> str:
    """*text* with every short placeholder written out, once. Unknown ones stay."""
    return _SHORT.sub(_full, text)


def _full(match: re.Match[str]) -> str:
    if plain := match["plain"]:
        return f"{{{_PLAIN[plain]}}}"
    prefix = match["word"] or match["path"]
    tail = match["word_tail"] if match["word"] else match["path_tail"]
    return f"{{{_FULL_PREFIXES[prefix]}.{tail}}}"
