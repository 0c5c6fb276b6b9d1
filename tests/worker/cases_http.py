"""HTTP/1.1 as bytes: what each server must answer, with the section of the RFC that says so.

Both servers run this table against ``cases_app``, which answers each request with its method, path, query and content.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    name: str
    """Section of RFC 9110 (HTTP semantics) or 9112 (HTTP/1.1), and what is the matter."""
    data: bytes
    statuses: tuple[int, ...]
    """Of the answers, in order; none when the server must wait for more, or end the connection silently."""
    ends: bool = False
    """The server ends the connection after the last of them; otherwise it must serve another request."""
    bodies: tuple[bytes, ...] = ()
    """Contents of the answers, where they matter."""


HOST = b"Host: a.example\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
ONE_CHUNK = b"1\r\na\r\n0\r\n\r\n"
OK = b"GET / - "
POSTED = b"POST / - "


def ok(name: str, data: bytes, *bodies: bytes, ends: bool = False) -> Case:
    return Case(name, data, (200,) * max(1, len(bodies)), ends, bodies)


def bad(name: str, data: bytes, status: int = 400) -> Case:
    return Case(name, data, (status,), ends=True)


def request(line: bytes, *fields: bytes, content: bytes = b"") -> bytes:
    return line + b"\r\n" + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + content


def get(*fields: bytes) -> bytes:
    return request(b"GET / HTTP/1.1", *fields)


def post(*fields: bytes, content: bytes = b"") -> bytes:
    return request(b"POST / HTTP/1.1", *fields, content=content)


REQUEST_LINE = [
    ok("9112 3 the simplest request", get(), OK),
    ok("9112 2.2 an empty line before the request", b"\r\n" + get(), OK),
    ok("9112 2.2 two empty lines before the request", b"\r\n\r\n" + get(), OK),
    bad("9112 2.2 nothing but empty lines", b"\r\n" * 100),
    bad("9112 2.2 white space before the request line", b" " + get()),
    bad("9112 2.2 a bare LF after the request line", b"GET / HTTP/1.1\n" + HOST + b"\r\n"),
    bad("9112 2.2 bare LFs throughout", b"GET / HTTP/1.1\nHost: a\n\n"),
    bad("9112 2.2 a bare CR after the request line", b"GET / HTTP/1.1\r" + HOST + b"\r\n"),
    bad("9112 2.2 a bare CR in the request line", b"GET /\r HTTP/1.1\r\n" + HOST + b"\r\n"),
    bad("9112 3 two spaces before the target", request(b"GET  / HTTP/1.1")),
    bad("9112 3 two spaces before the version", request(b"GET /  HTTP/1.1")),
    bad("9112 3 a space after the version", request(b"GET / HTTP/1.1 ")),
    bad("9112 3 a tab for a space", request(b"GET\t/ HTTP/1.1")),
    bad("9112 3 a space in the target", request(b"GET /a b HTTP/1.1")),
    bad("9112 3 no target", request(b"GET HTTP/1.1")),
    bad("9112 3 an empty target", request(b"GET  HTTP/1.1")),
    bad("1945 a simple request of HTTP/0.9", b"GET /\r\n\r\n"),
    bad("9112 3 no method", request(b" / HTTP/1.1")),
    bad("9112 3 a line of garbage", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
    bad("9112 3.1 a method that is not a word", request(b"G@T / HTTP/1.1")),
    ok("9110 9.1 an unknown method is the app's to judge", request(b"BREW / HTTP/1.1"), b"BREW / - "),
    ok("9110 9.1 methods are case-sensitive", request(b"get / HTTP/1.1"), b"get / - "),
    ok("9110 9.1 a method of the registry", request(b"VERSION-CONTROL / HTTP/1.1"), b"VERSION-CONTROL / - "),
    ok("9110 9.1 a method of somebody's own", request(b"PURGE-ALL /a HTTP/1.1"), b"PURGE-ALL /a - "),
    ok(
        "9110 9.1 an unknown method with content",
        request(b"BREW / HTTP/1.1", b"Content-Length: 3", content=b"tea"),
        b"BREW / - tea",
    ),
    ok("9110 9.1 an unknown method and a target above ASCII", request(b"BREW /?\xe9 HTTP/1.1"), b"BREW / \xe9 "),
    bad("9110 9.1 a method that is endless", request(b"X" * 90 + b" / HTTP/1.1"), 501),
    bad("9110 5.6.2 a method is a token", request(b"GE(T / HTTP/1.1")),
    ok("9110 5.6.3 a tab behind a coding", post(b"Transfer-Encoding: chunked\t", content=ONE_CHUNK), POSTED + b"a"),
    ok("9110 5.6.3 a tab before a coding", post(b"Transfer-Encoding:\tchunked", content=ONE_CHUNK), POSTED + b"a"),
    ok("9110 5.6.3 a tab behind a length", post(b"Content-Length: 1\t", content=b"a"), POSTED + b"a"),
    bad("9110 8.6 a length of many zeros", post(b"Content-Length: " + b"0" * 5000 + b"1", content=b"a")),
    bad("9110 7.2 a bracket that is not closed", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    bad("9110 7.2 a port is a number", b"GET / HTTP/1.1\r\nHost: h:port\r\n\r\n"),
    bad("3986 3.2.2 a percent that is no escape in Host", b"GET / HTTP/1.1\r\nHost: a%zz\r\n\r\n"),
    ok("3986 3.2.2 an escape in Host", b"GET / HTTP/1.1\r\nHost: a%41\r\n\r\n", OK),
    bad("3986 3.2.2 what is no address in brackets", b"GET / HTTP/1.1\r\nHost: [a.example]\r\n\r\n"),
    bad("3986 3.2.2 nothing in brackets", b"GET / HTTP/1.1\r\nHost: []\r\n\r\n"),
    ok("3986 3.2.2 an address of a later version", b"GET / HTTP/1.1\r\nHost: [v1.a:b]\r\n\r\n", OK),
    ok("6874 2 an address with a zone", b"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", OK),
    bad("9110 7.2 two ports", b"GET / HTTP/1.1\r\nHost: h:1:2\r\n\r\n"),
    ok("9110 7.2 an address and a port", b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", OK),
    ok("9110 7.2 an empty port", b"GET / HTTP/1.1\r\nHost: h:\r\n\r\n", OK),
    bad("9110 9.3.6 CONNECT is for proxies", request(b"CONNECT a.example:80 HTTP/1.1"), 501),
    bad("9112 3.1 a method beyond any length", request(b"A" * 100_000 + b" / HTTP/1.1"), 414),
    ok("9110 9.1 an extension method", request(b"PROPFIND / HTTP/1.1"), b"PROPFIND / - "),
    ok("9110 9.1 a method with a hyphen", request(b"M-SEARCH / HTTP/1.1"), b"M-SEARCH / - "),
    ok("9110 9.3.8 TRACE is the app's business", request(b"TRACE / HTTP/1.1"), b"TRACE / - "),
    bad("9112 2.3 a higher minor version", request(b"GET / HTTP/1.2"), 505),
    bad("9112 2.3 a higher major version", request(b"GET / HTTP/2.0"), 505),
    bad("9113 3.4 the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    bad("9112 2.3 version 0.9 by name", request(b"GET / HTTP/0.9"), 505),
    bad("9112 2.3 a version without a dot", request(b"GET / HTTP/11")),
    bad("9112 2.3 a version of two digits", request(b"GET / HTTP/1.10")),
    bad("9112 2.3 the name is case-sensitive", request(b"GET / http/1.1")),
    bad("9112 2.3 another protocol", request(b"GET / ICY/1.1")),
    bad("9112 2.3 RTSP", request(b"DESCRIBE / RTSP/1.0")),
    bad("9112 2.3 a comma for a dot", request(b"GET / HTTP/1,1")),
]

TARGET = [
    ok("9112 3.2.1 a path and a query", request(b"GET /a/b?c=d&e HTTP/1.1"), b"GET /a/b c=d&e "),
    ok("9112 3.2.1 an empty query", request(b"GET /a? HTTP/1.1"), b"GET /a - "),
    ok("9112 3.2.1 a path is not normalised", request(b"GET //a/../b/./c HTTP/1.1"), b"GET //a/../b/./c - "),
    ok("3986 2.1 a percent-escape", request(b"GET /%61%2F HTTP/1.1"), b"GET /a/ - "),
    ok("3986 2.1 a percent that is no escape", request(b"GET /%zz% HTTP/1.1"), b"GET /%zz% - "),
    ok("3986 2.1 characters that should have been escaped", request(b'GET /"<>^`{|} HTTP/1.1'), b'GET /"<>^`{|} - '),
    ok("9112 3.2.2 absolute form", request(b"GET http://b.example/x?y HTTP/1.1"), b"GET /x y "),
    ok("9112 3.2.2 absolute form without a path", request(b"GET http://b.example HTTP/1.1"), OK),
    ok("9112 3.2.2 absolute form, https", request(b"GET HTTPS://b.example:8443/ HTTP/1.1"), OK),
    bad("9110 4.2.4 user information", request(b"GET http://u:p@b.example/ HTTP/1.1")),
    bad("9112 3.2.2 another scheme", request(b"GET ftp://b.example/ HTTP/1.1")),
    bad("9112 3.2.2 no authority", request(b"GET http:///a HTTP/1.1")),
    bad("9112 3.2.3 authority form is for CONNECT", request(b"GET a.example:80 HTTP/1.1")),
    ok("9112 3.2.4 the asterisk of OPTIONS", request(b"OPTIONS * HTTP/1.1"), b"OPTIONS * - "),
    bad("9112 3.2.4 an asterisk of GET", request(b"GET * HTTP/1.1")),
    bad("9112 3.2 a path without its slash", request(b"GET a HTTP/1.1")),
    bad("9112 3.2 a query without a path", request(b"GET ?a HTTP/1.1")),
    bad("9110 7.1 a fragment", request(b"GET /a#b HTTP/1.1")),
    bad("9112 3.2 a control character", request(b"GET /\x01 HTTP/1.1")),
    bad("9112 3.2 NUL", request(b"GET /\x00 HTTP/1.1")),
    bad("9112 3.2 DEL", request(b"GET /\x7f HTTP/1.1")),
    bad("9112 3.2 raw UTF-8 in the path", request("GET /é HTTP/1.1".encode())),
    ok("9112 3 raw bytes in the query, as Caddy passes", request(b"GET /?\xe9\xff HTTP/1.1"), b"GET / \xe9\xff "),
    bad("9112 3.2 NUL in the query", request(b"GET /?a=\x00 HTTP/1.1")),
    bad("9112 3.2 DEL in the query", request(b"GET /?\xc3\x7f HTTP/1.1")),
    bad("9112 3 a target that is too long", request(b"GET /" + b"a" * 70_000 + b" HTTP/1.1"), 414),
    bad("9112 3 a target that never ends", b"GET /" + b"a" * 80_000, 414),
    ok("9112 3 a target of 8000 bytes", request(b"GET /" + b"a" * 8000 + b" HTTP/1.1")),
]

FIELDS = [
    bad("9112 3.2 no Host", b"GET / HTTP/1.1\r\n\r\n"),
    bad("9112 3.2 two Hosts", get(b"Host: b.example")),
    bad("9112 3.2 the same Host twice", get(b"Host: a.example")),
    ok("9110 7.2 an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", OK),
    ok("9110 7.2 an IPv6 address", b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", OK),
    bad("9110 7.2 a slash in Host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    bad("9110 7.2 a space in Host", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    bad("9110 7.2 user information in Host", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    bad("9112 5.1 a space before the colon", get(b"X : y")),
    bad("9112 5.1 no colon", get(b"X")),
    bad("9112 5.1 an empty name", get(b": y")),
    bad("9112 5.1 a space in a name", get(b"X Y: z")),
    bad("9112 5.1 UTF-8 in a name", get("é: y".encode())),
    bad("9112 5.1 a bracket in a name", get(b"X(: y")),
    bad("9112 5.1 NUL in a name", get(b"X\x00: y")),
    ok("9112 5.1 no space after the colon", get(b"X:y"), OK),
    ok("9112 5.1 an empty value", get(b"X:"), OK),
    ok("9112 5.1 white space around a value", get(b"X: \t y \t "), OK),
    ok("9110 5.5 obsolete text in a value", get(b"X: \xc3\xa9\xff"), OK),
    bad("9110 5.5 a control character in a value", get(b"X: a\x01b")),
    bad("9110 5.5 NUL in a value", get(b"X: a\x00b")),
    bad("9110 5.5 DEL in a value", get(b"X: a\x7fb")),
    bad("9110 5.5 a bare CR in a value", get(b"X: a\rb")),
    bad("9110 5.5 a bare LF ends a field", b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n"),
    bad("9112 5.2 a folded value", get(b"X: a\r\n b")),
    bad("9112 2.2 white space before the first field", b"GET / HTTP/1.1\r\n " + HOST + b"\r\n"),
    bad("9110 5.4 too many fields", get(*[b"X: y"] * 300), 431),
    bad("9110 5.4 a field that is too large", get(b"X: " + b"y" * 1_200_000), 431),
    bad("9110 5.4 white space that never ends", GET + b"X:" + b" " * 1_200_000, 431),
    ok("9110 5.4 20 kB of fields, as Caddy lets through", get(*[b"X: " + b"y" * 100] * 180), OK),
    ok("9110 5.1 a name with an underscore is dropped", get(b"Content_Length: 5", b"Transfer_Encoding: chunked"), OK),
]

LENGTH = [
    ok("9110 8.6 a content with its length", post(b"Content-Length: 3", content=b"abc"), POSTED + b"abc"),
    ok("9110 8.6 a content of nothing", post(b"Content-Length: 0"), POSTED),
    ok("9112 6.3 no length is no content", post(), POSTED),
    ok("9110 9.3.1 GET with a content", request(b"GET / HTTP/1.1", b"Content-Length: 2", content=b"ab"), OK + b"ab"),
    ok("9110 8.6 leading zeros", post(b"Content-Length: 0003", content=b"abc"), POSTED + b"abc"),
    ok("9112 5.1 white space after a length", post(b"Content-Length: 3 ", content=b"abc"), POSTED + b"abc"),
    bad("9110 8.6 a sign", post(b"Content-Length: +3", content=b"abc")),
    bad("9110 8.6 a negative length", post(b"Content-Length: -1")),
    bad("9110 8.6 hexadecimal", post(b"Content-Length: 0x3", content=b"abc")),
    bad("9110 8.6 a fraction", post(b"Content-Length: 3.0", content=b"abc")),
    bad("9110 8.6 an underscore", post(b"Content-Length: 1_0", content=b"a" * 10)),
    bad("9110 8.6 no digits", post(b"Content-Length:", content=b"abc")),
    bad("9110 8.6 digits that are not ASCII", post("Content-Length: ٣".encode(), content=b"abc")),
    bad("9110 8.6 beyond 64 bits", post(b"Content-Length: 99999999999999999999")),
    bad("9112 6.3 a list of equal lengths", post(b"Content-Length: 3, 3", content=b"abc")),
    bad("9112 6.3 a list of different lengths", post(b"Content-Length: 3, 4", content=b"abc")),
    bad("9112 6.3 the same length twice", post(b"Content-Length: 3", b"Content-Length: 3", content=b"abc")),
    bad("9112 6.3 two lengths", post(b"Content-Length: 3", b"Content-Length: 4", content=b"abc")),
    bad("9112 6.3 length and chunked", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", content=b"0\r\n\r\n")),
    bad("9112 6.3 chunked and length", post(b"Transfer-Encoding: chunked", b"Content-Length: 5", content=b"0\r\n\r\n")),
    bad("9110 15.5.14 a content over the limit", post(b"Content-Length: 2000000"), 413),
]

CODINGS = [
    ok("9112 7.1 one chunk", CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", POSTED + b"abc"),
    ok("9112 7.1 several chunks", CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", POSTED + b"abc"),
    ok("9112 7.1 no chunk but the last", CHUNKED + b"0\r\n\r\n", POSTED),
    ok("9112 7.1 hexadecimal sizes", CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", POSTED + b"0123456789"),
    ok("9112 7.1 small letters", CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n", POSTED + b"0123456789"),
    ok("9112 7.1 leading zeros", CHUNKED + b"0003\r\nabc\r\n000\r\n\r\n", POSTED + b"abc"),
    ok("9112 7.1 line ends in a chunk", CHUNKED + b"8\r\n\r\n0\r\n\r\n\n\r\n0\r\n\r\n", POSTED + b"\r\n0\r\n\r\n\n"),
    ok("9112 7.1.1 an extension", CHUNKED + b"3;a=b\r\nabc\r\n0;c\r\n\r\n", POSTED + b"abc"),
    ok("9112 7.1.1 a quoted extension", CHUNKED + b'3;a="b;c"\r\nabc\r\n0\r\n\r\n', POSTED + b"abc"),
    bad("9112 7.1.1 an extension without a name", CHUNKED + b"3;\r\nabc\r\n0\r\n\r\n"),
    bad("9112 7.1.1 an unfinished quoted extension", CHUNKED + b'3;a="b\r\nabc\r\n0\r\n\r\n'),
    bad("9112 7.1.2 a trailer that frames", CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n"),
    bad("9112 7.1.2 a control character in a trailer", CHUNKED + b"0\r\nX: a\x01\r\n\r\n"),
    bad("9112 7.1 a carriage return too many", CHUNKED + b"3\r\r\nabc\r\n0\r\n\r\n"),
    bad("9112 7.1.1 an extension with a line feed", CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    bad("9112 7.1.1 an extension that never ends", CHUNKED + b"3;" + b"a" * 100_000),
    ok("9112 7.1.2 a trailer", CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\nZ: w\r\n\r\n", POSTED + b"abc"),
    bad("9112 7.1.2 trailers that never end", CHUNKED + b"0\r\n" + b"X: y\r\n" * 20_000),
    bad("9112 7.1.2 a malformed trailer", CHUNKED + b"0\r\nX\r\n\r\n"),
    bad("9112 7.1 a size that is not hexadecimal", CHUNKED + b"x\r\n\r\n"),
    bad("9112 7.1 no size", CHUNKED + b"\r\nabc\r\n0\r\n\r\n"),
    bad("9112 7.1 a sign", CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n"),
    bad("9112 7.1 a prefix", CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    bad("9112 7.1 a space after the size", CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n"),
    bad("9112 7.1 a space before the size", CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n"),
    bad("9112 7.1 a size beyond 64 bits", CHUNKED + b"fffffffffffffffff\r\nabc"),
    bad("9112 7.1 a chunk that is too long", CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    bad("9112 7.1 a chunk that is too short", CHUNKED + b"4\r\nabc\r\n0\r\n\r\n"),
    bad("9112 7.1 bare LFs", CHUNKED + b"3\nabc\n0\n\n"),
    bad("9112 7.1 a bare LF at the end", CHUNKED + b"3\r\nabc\r\n0\r\n\n"),
    bad("9110 15.5.14 a chunked content over the limit", CHUNKED + b"f4241\r\n" + b"x" * 1_000_001, 413),
    ok("9112 6.1 the name is case-insensitive", CHUNKED.replace(b"chunked", b"Chunked") + b"0\r\n\r\n", POSTED),
    bad("9112 6.1 an unknown coding", post(b"Transfer-Encoding: identity")),
    bad("9112 6.3 a coding that does not end in chunked", post(b"Transfer-Encoding: gzip")),
    bad("9112 6.3 chunked is not the last", post(b"Transfer-Encoding: chunked, gzip", content=b"0\r\n\r\n")),
    bad("9112 6.1 another coding before chunked", post(b"Transfer-Encoding: gzip, chunked", content=b"0\r\n\r\n"), 501),
    bad("9112 6.1 chunked twice", post(b"Transfer-Encoding: chunked, chunked", content=b"0\r\n\r\n")),
    bad("9112 6.1 two fields", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    bad("9112 6.1 something like chunked", post(b"Transfer-Encoding: xchunked", content=b"0\r\n\r\n")),
    bad("9112 6.1 a vertical tab", post(b"Transfer-Encoding: \x0bchunked", content=b"0\r\n\r\n")),
    bad("9112 6.1 quotes", post(b'Transfer-Encoding: "chunked"', content=b"0\r\n\r\n")),
    bad("9112 6.1 chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
]

CONNECTION = [
    ok("9112 9.3.2 pipelining", get() * 3, OK, OK, OK),
    ok(
        "9112 9.3.2 pipelining with contents",
        post(b"Content-Length: 3", content=b"abc") + CHUNKED + b"2\r\nde\r\n0\r\n\r\n" + get(),
        POSTED + b"abc",
        POSTED + b"de",
        OK,
    ),
    ok(
        "9112 2.2 an empty line between requests",
        post(b"Content-Length: 1", content=b"a") + b"\r\n" + get(),
        POSTED + b"a",
        OK,
    ),
    Case("9112 9.3.2 a good and a bad request", get() + b"GET\r\n\r\n", (200, 400), ends=True),
    Case("9112 9.6 nothing is read behind a close", get(b"Connection: close") + get(), (200,), ends=True),
    Case("9112 9.6 close among other options", get(b"Connection: foo, Close"), (200,), ends=True),
    Case("9112 9.6 close in a second field", get(b"Connection: foo", b"Connection: close"), (200,), ends=True),
    ok("9112 9.3 keep-alive says nothing new", get(b"Connection: keep-alive"), OK),
    ok("9112 9.6 something like close", get(b"Connection: closed"), OK),
    Case("9112 9.3 HTTP/1.0 ends", b"GET / HTTP/1.0\r\n\r\n", (200,), True, (OK,)),
    Case("9112 9.3 HTTP/1.0 with a Host", b"GET / HTTP/1.0\r\n" + HOST + b"\r\n", (200,), True, (OK,)),
    bad("9112 3.2 HTTP/1.0 with two Hosts", b"GET / HTTP/1.0\r\n" + HOST + HOST + b"\r\n"),
    ok("9112 9.3 HTTP/1.0 with keep-alive", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", OK),
    ok("9112 9.3 HTTP/1.0 with a content", b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\na", POSTED + b"a", ends=True),
    ok("9110 7.8 an upgrade that is not made", get(b"Connection: upgrade", b"Upgrade: h2c"), OK),
    ok(
        "9110 7.8 an upgrade with a content",
        post(b"Connection: upgrade", b"Upgrade: foo", b"Content-Length: 3", content=b"abc") + get(),
        POSTED + b"abc",
        OK,
    ),
    ok("9110 7.8 an upgrade that Connection does not name", get(b"Upgrade: websocket"), OK),
    bad("9110 10.1.1 an unknown expectation", get(b"Expect: tea"), 417),
    ok("9110 10.1.1 an expectation of HTTP/1.0", b"GET / HTTP/1.0\r\nExpect: tea\r\n\r\n", OK, ends=True),
    ok(
        "9110 10.1.1 a content that does not wait",
        post(b"Expect: 100-continue", b"Content-Length: 3", content=b"abc"),
        POSTED + b"abc",
    ),
    Case("9112 8 a head that is cut off", GET, (), ends=False),
    Case("9112 8 a content that is cut off", post(b"Content-Length: 5", content=b"abc"), (), ends=False),
    Case("9112 8 a chunk that is cut off", CHUNKED + b"5\r\nabc", (), ends=False),
]

CASES = [*REQUEST_LINE, *TARGET, *FIELDS, *LENGTH, *CODINGS, *CONNECTION]

SETTINGS = {"max_body_bytes": 1_000_000}
"""What the servers under test are configured with, beyond their defaults."""
