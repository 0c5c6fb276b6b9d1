"""Requests for tests: a few hundred, ordinary and hostile, and their heads without any of the grammar's refusals."""

from __future__ import annotations

from typing import NamedTuple


class Head(NamedTuple):
    """A head as ``http1`` would make it, whatever the bytes are."""

    method: str
    target: bytes
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    version: str
    host: bytes | None


def head(raw: bytes) -> Head:
    """The head of one request."""
    lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    method, target, version = lines[0].split(b" ")
    pairs = [line.partition(b":") for line in lines[1:]]
    headers = [(name.lower(), value.strip(b" \t")) for name, _, value in pairs if b"_" not in name]
    host = dict(headers).get(b"host")
    path, _, query = target.partition(b"?")
    if not target.startswith(b"/") and b"://" in target:
        host, slash, rest = path.partition(b"://")[2].partition(b"/")
        path = slash + rest
    return Head(method.decode(), target, path, query, headers, version.decode().removeprefix("HTTP/"), host)


def request(
    target: str | bytes = "/", *fields: str | bytes, method: str = "GET", host: str | bytes = "ok.test"
) -> bytes:
    """The bytes of a request; each of *fields* is a line."""
    lines = [b" ".join((method.encode(), _bytes(target), b"HTTP/1.1")), b"Host: " + _bytes(host)]
    return b"\r\n".join([*lines, *map(_bytes, fields), b"", b""])


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


HOSTS: tuple[str, ...] = (
    *("ok.test", "OK.Test.", "a.b.C.d:80", "[::1]", "[::1]:80", "::1", "a:", "a:http", "a:80:90", "a:0080", "a:-1"),
    *("a:99999", "a:+1", "a:99999999999999999999", "..", ".", "a..b", "*", "*.ok.test", "a%2fb", "%2e%2e", "-a-", "_"),
    *(
        "~",
        "a,b;c$",
        "127.0.0.1:8",
        "[fe80::1%25eth0]:1",
        "[fe80::1%25eth0]",
        "[a]b:1",
        "a]:1",
        "[[a]:1",
        "a[:1",
        "[:1",
    ),
    *(
        f"{'x' * 200}.y",
        f"{'x' * 300}.y",
        ".ok.test",
        "ok.test..",
        "one.ok.test",
        "x.one.ok.test",
        "xn--bcher-kva.test",
    ),
)

TARGETS: tuple[str | bytes, ...] = (
    *("/a", "/A", "/a/", "//", "//a", "/a//b", "/a///b//", "/a/../b", "/a/..", "/a/.", "/./", "/..", "/../a", "/a/./b"),
    *("/%2F", "/a%2Fb", "/a%2fb", "/a%2Fb%20c/%C3%A9/../x%3Fy", "/%2f%2E%2e", "/a/%2e%2e/b", "/%2e%2e%2fa", "/a%5Cb"),
    *(
        "/%00",
        "/a%00b",
        "/%0d%0a",
        "/%ff%fe",
        "/%C3",
        "/%C3%A9",
        "/%C3%89",
        "/%E2%84%AA",
        "/%C4%B0",
        "/\u00e9",
        "/\u00c9",
    ),
    *('/\u00e9%2F"<>|^`{}', b"/\xff", b"/a%2Fb\xff", "/x.tar.gz", "/.hidden", "/a.b/c", "/a.b/", "/a/b.", "/...", "/."),
    *("/a+b", "/a;b", "/a:b@c!$&'()*,=", "/a#b", "/a?x#y", "/%7Euser/~x/%2e", "/a%2525", "/a%2", "/a%zz", "/A/B/C"),
    *("/foo", "/foo/", "/foo/bar", "/foobar", "/FOO/Bar", "/foo/bar/baz", "/foo//bar", "/foo/x/baz", "/foo/x/y/baz"),
    *(
        "/foo/../bar",
        "/bar/../foo",
        "/foo%2Fbar",
        "/foo%2fbar",
        "/foo/%62ar",
        "/%66oo",
        "/foo.php",
        "/a/foo.PHP",
        "/f\u00f6o",
    ),
    *("/foo%2Fbar/baz", "/bands/AC%2fDC", "/bands/AC%2FDC/t.n.t", "/bands/acdc", "/bands/ac/dc", "/b%20a", "/b a"),
    *(
        "/api/v1/users",
        "/api/v12/users/7",
        "/API/v1/users",
        "/api/v1/",
        "/api/",
        "/api",
        "/apiary",
        "/xapi/v1",
        "/t/Blog-1/x",
    ),
    *(
        "/a?",
        "/a?b",
        "/?a=1",
        "/?a=2",
        "/?a=1&a=2&A=3",
        "/?a=2&b=2",
        "/?a=%zz&b=1",
        "/?a=1;b=2&b=3",
        "/?=1&a",
        "/?&&a=1&",
    ),
    *(
        "/?a=+%2B&b=%20",
        "/?a=1?b=2",
        "/?%61=1",
        "/?a.b=1&a[]=2",
        "/?a=%ff",
        "/?\u00e9=1",
        b"/?a=\xff",
        "/?a=1%26b",
        "/?a=b=c",
    ),
    *(
        "/?a",
        "/?a=",
        "/?A=1",
        "/?a=*",
        "/?p=*",
        "/?p=/foo*",
        "/foo?p=foo",
        "/foo?P=/foo",
        '/?a={env.HOME}&b="<>',
        "/?;",
    ),
    *(
        "/a{http.request.host}b",
        "http://other/zz?q=1",
        "http://other?q",
        "http://other",
        "http://OTHER:80/a//b",
        "/" + "a" * 3000,
    ),
    *(
        "/app",
        "/app/",
        "/app/x",
        "/APP/x",
        "/app//x",
        "/app/../x",
        "/app%2Fx",
        "/app/%2e%2e/x",
        "/apple",
        "/app/x%2Fy",
        "/%61pp/x",
    ),
    *(
        "/app/?q=1",
        "/app?q=1",
        "/app/\u00e9",
        "/app/sub/x",
        "/app/sub",
        "/%C3%A9/x",
        "/x//y/z",
        "/x%2F/y",
        "/app/a;b%3B",
    ),
)

FIELDS: tuple[tuple[str | bytes, ...], ...] = (
    ("X-A: 1", "x-a:  2 ", "X-A: ,"),
    ("X-A: {env.HOME}",),
    (b"X-A: \xff\xc3\xa9",),
    ("X-A:",),
    ("X-A: foobar",),
    ("X-A: FOO",),
    ("X-A: foo", "X-A: bar"),
    ("X-A: barfoo",),
    ("X-A: a*b",),
    ("X-B: foo",),
    ("X-Brace: {http.request.host}",),
    ("X_U: 1",),
    ("User-Agent: Mozilla/5.0 (X11; Linux) Firefox/120",),
    ("Content-Length: 0",),
    ("Content-Type: application/grpc+proto",),
    ("Connection: close",),
    ('Cookie: s=1; a="q"; b=x y,z',),
    ("Cookie: S=1; s=2",),
    ("Cookie: s=1", "Cookie: s=2; a=3"),
    ('Cookie: s="a"b"; a=%20; b',),
    ("Cookie: s = 1;a= 2 ;b=3=4",),
    (b"Cookie: s=\xc3\xa9; a=ok",),
    ("Cookie: a b=1; s=2",),
    ('Cookie: s=\\; a=""; b="',),
    ("Cookie: ; ;s=1",),
    ("Cookie: =1; s",),
    ('Cookie: a="x',),
    ('Cookie: b@d=1; s="\\"',),
    ("X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "Via: 2.0 Caddy"),
    ("X-Forwarded-For: 9.9.9.9, 8.8.8.8",),
    ("X-Forwarded-For: evil, 2001:db8::1", "X-Forwarded-For: 7.7.7.7"),
    ("X-Forwarded-For:",),
    ("X-Forwarded-For: unknown, 9.9.9.9:8080, 1.1.1.1",),
    ("X-Forwarded-For: [2001:DB8:0:0::1]:443",),
    ("X-Forwarded-For: fe80::1%eth0",),
    ("X-Forwarded-For: ::ffff:1.2.3.4",),
    ("X-Forwarded-For: 010.0.0.1, 1.2.3, 1.2.3.4.5, ::1",),
    ("X-Forwarded-Proto: https", "X-Forwarded-Proto: http"),
)

METHODS = ("get", "PURGE", "M-SEARCH", "POST", "PUT", "Get")

REQUESTS: tuple[bytes, ...] = (
    *(request(host=host) for host in HOSTS),
    *(request(target) for target in TARGETS),
    *(request("/", *fields) for fields in FIELDS),
    *(request("/", method=method) for method in METHODS),
    request("/foo/bar?a=1&p=/foo*", "X-A: foo", "Cookie: s=1", host="One.ok.test:8080"),
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n",
)
"""Ordinary and hostile. Some are refused by any server."""
