"""The app behind the tests of the WSGI server: what it does is named by the path's first segment."""

from __future__ import annotations

import contextvars
import json
import os
import sys
import tempfile
import threading
import time
from wsgiref.validate import validator

gate = threading.Event()
variable = contextvars.ContextVar("variable", default="unset")
variable.set("imported")
closed = []


class Closing:
    """An iterable whose ``close`` can be seen, and can be slow."""

    def __init__(self, content, seconds=0.0, name=""):
        self.content = iter(content)
        self.seconds = seconds
        self.name = name

    def __iter__(self):
        return self.content

    def close(self):
        time.sleep(self.seconds)
        closed.append(self.name)


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"plain"]


def lengthless(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"no", b" ", b"length"]


def empty(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return []


def environ(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    shown = {key: value if isinstance(value, (str, bool, int, tuple)) else "?" for key, value in environ.items()}
    return [json.dumps(shown).encode()]


def generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one"
    yield b""
    yield b"two"


silence = []


class Silent:
    """Pieces without content, until it is closed."""

    def __iter__(self):
        silence[:] = ["begun"]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            time.sleep(0.02)
            yield b""

    def close(self):
        silence[:] = ["closed"]


def silent(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return Silent()


def silence_of(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["".join(silence).encode()]


def wrapped(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return environ["wsgi.file_wrapper"](open(environ["QUERY_STRING"], "rb"))


def late_start(environ, start_response):
    yield b""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"started with the first chunk"


def gated(environ, start_response):
    """Yields, then waits until /open is asked."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    gate.clear()
    yield b"data: 1\n\n"
    gate.wait(20)
    yield b"data: 2\n\n"


def waiting(environ, start_response):
    """Answers once /open is asked."""
    gate.clear()
    gate.wait(20)
    start_response("200 OK", [])
    return [b"waited"]


def fail_to_take(environ, start_response):
    """The next connection cannot be taken, as by an error of ours."""
    table = sys.modules["_caddysnake.worker.wsgi.connection_table"].ConnectionTable
    admit = table.admit

    def fail(*_):
        table.admit = admit
        raise RuntimeError("an error of ours")

    table.admit = fail
    return plain(environ, start_response)


def open_gate(environ, start_response):
    gate.set()
    start_response("200 OK", [])
    return [b"open"]


def writes(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    write(b"")
    write(b"twice, ")
    return [b"returned"]


def echo(environ, start_response):
    content = environ["wsgi.input"].read(-1)
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [content]


def read(environ, start_response):
    """Reads as the query says, such as ``read:3,readline,readlines,iter``."""
    stream = environ["wsgi.input"]
    results = []
    for step in environ["QUERY_STRING"].split(","):
        method, _, size = step.partition(":")
        if method == "iter":
            results.append([line.decode() for line in stream])
            continue
        found = getattr(stream, method)(int(size)) if size else getattr(stream, method)()
        results.append([line.decode() for line in found] if isinstance(found, list) else found.decode())
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(results).encode()]


def count(environ, start_response):
    """Counts content in small memory."""
    total = 0
    while data := environ["wsgi.input"].read(65536):
        total += len(data)
    start_response("200 OK", [])
    return [str(total).encode()]


def first_bytes(environ, start_response):
    """Answers after a part of the content."""
    data = environ["wsgi.input"].read(4)
    start_response("200 OK", [])
    return [data]


def refuses(environ, start_response):
    """Answers without reading."""
    start_response("413 Content Too Large", [("Content-Type", "text/plain")])
    return [b"too large for me"]


def bounces(environ, start_response):
    """Streams back what it reads, as it reads it."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    for line in environ["wsgi.input"]:
        yield line.upper()


def raises(environ, start_response):
    raise ValueError("raised before the response")


def raises_started(environ, start_response):
    start_response("200 OK", [("X-Lost", "1")])
    raise ValueError("raised before the first chunk")


def raises_midway(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"the first half"
    raise ValueError("raised in the middle")


def exits(environ, start_response):
    sys.exit(3)


def recovers(environ, start_response):
    """Replaces its response by exc_info, as PEP 3333 lets it while nothing has left."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-First", "1")])
    try:
        raise KeyError("found out late")
    except KeyError:
        start_response("503 Sorry", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"recovered"]


def too_late(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"gone already"
    try:
        raise KeyError("found out too late")
    except KeyError:
        start_response("503 Sorry", [], sys.exc_info())
    yield b"never sent"


def starts_twice(environ, start_response):
    start_response("200 OK", [])
    try:
        start_response("200 OK", [])
    except Exception as exc:
        return [type(exc).__name__.encode() + b" raised"]
    return [b"nothing raised"]


def never_starts(environ, start_response):
    return [b"no head"]


def text(environ, start_response):
    start_response("200 OK", [])
    return ["str instead of bytes"]


def bad_header(environ, start_response):
    name, _, value = environ["HTTP_X_BAD"].partition("=")
    unescaped = value.encode().decode("unicode_escape")
    start_response("200 OK", [(name.encode().decode("unicode_escape"), unescaped)])
    return [b"sent all the same"]


def bad_status(environ, start_response):
    start_response(environ["HTTP_X_BAD"].encode().decode("unicode_escape"), [])
    return [b"sent all the same"]


def status(environ, start_response):
    start_response(environ["HTTP_X_STATUS"], [("Content-Type", "text/plain")])
    return [b"with content"]


def short(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    yield b"short"


def short_list(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return [b"short"]


def long_list(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return [b"longer"]


def long_generator(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    yield b"just"
    yield b" more"


def hop_by_hop(environ, start_response):
    start_response("200 OK", [("Transfer-Encoding", "chunked"), ("Keep-Alive", "max=1"), ("Connection", "x-mine")])
    return [b"framed by the server"]


def closes_connection(environ, start_response):
    start_response("200 OK", [("Connection", "close")])
    return [b"bye"]


def closing(environ, start_response):
    """An iterable with close(); the query is how long that takes."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return Closing([b"closed"], float(environ["QUERY_STRING"] or 0), "closing")


def closing_raises(environ, start_response):
    start_response("200 OK", [])

    def content():
        yield b"half"
        raise ValueError("raised with close() to come")

    return Closing(content(), name="raising")


def close_raises(environ, start_response):
    class Bad(Closing):
        def close(self):
            raise ValueError("raised by close()")

    start_response("200 OK", [])
    return Bad([b"fine so far"])


def was_closed(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    found = ",".join(closed)
    closed.clear()
    return [found.encode()]


def after_last(environ, start_response):
    """All that was declared is yielded, then it goes on for a while."""
    start_response("200 OK", [("Content-Length", "4")])
    yield b"done"
    gate.clear()
    gate.wait(20)


def late_input(environ, start_response):
    """Tries to read its content after the response."""

    class Late(Closing):
        def close(self):
            try:
                environ["wsgi.input"].read()
                closed.append("read")
            except OSError:
                closed.append("refused")

    start_response("200 OK", [])
    return Late([b"answered first"])


def file(environ, start_response):
    with tempfile.NamedTemporaryFile(delete=False) as made:
        made.write(b"0123456789" * int(environ["QUERY_STRING"] or 10))
    opened = open(made.name, "rb")  # noqa: SIM115 - the server closes it
    os.unlink(made.name)
    if "HTTP_X_SEEK" in environ:
        opened.read(int(environ["HTTP_X_SEEK"]))
    headers = [("Content-Type", "text/plain")]
    if "HTTP_X_LENGTH" in environ:
        headers.append(("Content-Length", environ["HTTP_X_LENGTH"]))
    start_response("200 OK", headers)
    return environ["wsgi.file_wrapper"](opened, 4096)


def memory_file(environ, start_response):
    import io

    headers = [("Content-Type", "text/plain")]
    if "HTTP_X_LENGTH" in environ:
        headers.append(("Content-Length", environ["HTTP_X_LENGTH"]))
    start_response("200 OK", headers)
    return environ["wsgi.file_wrapper"](io.BytesIO(b"from memory"), 3)


def large(environ, start_response):
    """As many MiB as the query says, in one piece."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [bytes(int(environ["QUERY_STRING"]) << 20)]


def large_generator(environ, start_response):
    size = int(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Length", str(size << 20))])
    for _ in range(size):
        yield bytes(1 << 20)


def hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hinted"]


def complains(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("a complaint\n")
    errors.writelines(["two\n", "lines\n"])
    errors.flush()
    start_response("200 OK", [])
    return [b"complained"]


def nested(environ, start_response):
    """The client's going, wrapped in an exception of a framework's."""
    try:
        environ["wsgi.input"].read()
    except OSError as exc:
        raise RuntimeError("unreadable") from exc
    start_response("200 OK", [])
    return [b"read"]


def threads(environ, start_response):
    start_response("200 OK", [])
    return [str(threading.current_thread().name).encode()]


def modules(environ, start_response):
    start_response("200 OK", [])
    return [" ".join(sorted(sys.modules)).encode()]


def memory(environ, start_response):
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    start_response("200 OK", [])
    return [str(pages * os.sysconf("SC_PAGE_SIZE")).encode()]


def context(environ, start_response):
    """What a context variable is before the call sets it, and at its end."""
    before = variable.get().encode()
    variable.set("set")
    start_response("200 OK", [])
    yield before + b", then "
    yield variable.get().encode()


class Content(bytes):
    """As numpy and others have."""


def bytes_of_a_kind(environ, start_response):
    write = start_response("200 OK", [])
    content = Content(b"part ")
    if environ["QUERY_STRING"] == "written":
        write(content)
    return iter([content]) if environ["QUERY_STRING"] == "iterated" else [content]


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").partition("/")[0] or "plain"
    return globals()[name.replace("-", "_")](environ, start_response)


validated = validator(application)
