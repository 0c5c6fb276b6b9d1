"""Which app a request is for: what no Caddy can judge, because it is ours alone."""

from __future__ import annotations

import pytest
from support.heads import head, request

from caddysnake.config.language.adapt import load
from caddysnake.config.plan.plan import plan
from caddysnake.config.plan.routing import tables
from caddysnake.matchers import router
from caddysnake.matchers.router import Router
from caddysnake.matchers.target import Target
from caddysnake.placeholders.keys import UnsafeValue

TENANTS = """
    unix//run/x.sock {
        python {
            module_asgi "{labels.2}:app"
            working_dir "/srv/{labels.2}/"
        }
    }
"""


class Asked:
    """A router with what it refused."""

    def __init__(self, text: str) -> None:
        config = load(text.encode(), "Caddyfile", {})
        found, errors = tables(config, plan(config, cores=1), {})
        assert errors == []
        self.refused: list[UnsafeValue] = []
        self._router = Router(found, self.refused.append)

    def __call__(self, raw: bytes, *, is_trusted: bool = True) -> Target | None:
        return self._router.route(0, head(raw), "", is_trusted)  # type: ignore[arg-type]


def test_each_tenant_has_a_key_of_its_own() -> None:
    asked = Asked(TENANTS)
    keys = [asked(request(host=host)) for host in ("a.example.com", "b.example.com", "A.EXAMPLE.COM:8443")]
    assert keys == [Target(0, "a"), Target(0, "b"), Target(0, "a")]


HOSTILE = (
    "..",
    "a/b",
    "%2e%2e",
    "%2e%2e.x.y",
    "foo\x00.x.y",
    f"{'x' * 300}.y.z",
    "[::1]",
    "",
    ".x.y",
    "x.y",
    "a-b.x.y",
)


@pytest.mark.parametrize("host", HOSTILE, ids=lambda host: ascii(host)[:20])
def test_a_host_that_can_name_no_tenant_is_for_no_app_and_is_told(host: str) -> None:
    asked = Asked(TENANTS)
    assert asked(request(host=host)) is None
    assert len(asked.refused) == 1


def test_where_the_host_alone_decides_it_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(TENANTS)
    first = asked(request("/one", host="a.example.com"))
    listener = asked._router._listeners[0]
    monkeypatch.setattr(listener, "find", None)  # it would fail
    assert asked(request("/two?x=1", host="a.example.com")) is first


def test_any_number_of_hosts_takes_a_bounded_memory() -> None:
    asked = Asked(TENANTS)
    for number in range(router._HOSTS_MAX + 10):
        assert asked(request(host=f"t{number}.example.com")) == Target(0, f"t{number}")
    assert len(asked._router._listeners[0].by_host) == 10


@pytest.mark.parametrize(
    "block",
    [
        "python /a* a:app\n python b:app",
        "handle_path /a* {\n python a:app\n }\n python b:app",
        "@a path /a*\n handle @a {\n python a:app\n }\n handle {\n python b:app\n }",
        'python {\n module_wsgi a:app\n env_var WHERE "{path}"\n }',
        'python {\n module_wsgi a:app\n env_var WHERE "{http.request.port}"\n }',
    ],
)
def test_where_more_than_the_host_decides_every_request_is_looked_at(block: str) -> None:
    asked = Asked(f"{{\n default_bind unix//run/x.sock\n}}\nexample.com {{\n {block}\n}}\n")
    first, second = asked(request("/a", host="example.com")), asked(request("/b", host="example.com"))
    assert first is not None
    assert asked._router._listeners[0].by_host == {}
    assert first != second or "port" in block


def test_where_everything_is_for_one_app_nothing_is_looked_at() -> None:
    asked = Asked("unix//run/x.sock {\n python a:app\n}")
    assert asked(b"GET / HTTP/1.0\r\n\r\n") == Target(0)


def test_a_site_among_thousands_is_found_without_trying_the_others() -> None:
    text = "{\n default_bind unix//run/x.sock\n}\n*.example.com {\n python w:app\n}\n"
    text += "".join(f"t{number}.example.com {{\n python /p{number} a{number}:app\n}}\n" for number in range(3000))
    asked = Asked(text)
    assert len(asked._router._listeners[0]._sites._candidates("t7.example.com")) == 2
    assert len(asked._router._listeners[0]._sites._candidates("other.example.org")) == 0
    assert asked(request("/p7", host="t7.example.com")) is not None
    # The more specific site decides, even though it has no app for this path.
    assert asked(request("/p8", host="t7.example.com")) is None
    assert asked(request("/p8", host="other.example.com")) is not None


PORTS = """
    {
        default_bind unix//run/x.sock
    }
    http://a.test:8080 {
        python a1:app
    }
    http://a.test {
        python a2:app
    }
    https://a.test {
        python a3:app
    }
    http://*.test {
        python a4:app
    }
"""


@pytest.mark.parametrize(
    ("host", "scheme", "number"),
    [
        ("a.test:8080", "http", 0),
        ("a.test", "http", 1),
        ("a.test", "https", 2),
        ("a.test:443", "http", 2),
        # Mapped on the way to Caddy: no site has this port, and the host says more than the wildcard does.
        ("a.test:9999", "http", 0),
        ("b.test:9999", "http", 3),
    ],
)
def test_two_sites_with_one_host_are_told_apart_by_the_port_that_the_browser_used(
    host: str, scheme: str, number: int
) -> None:
    asked = Asked(PORTS)
    assert asked(request("/", f"X-Forwarded-Proto: {scheme}", host=host)) == Target(number)


def test_the_prefix_is_told_as_it_was_written() -> None:
    asked = Asked("unix//run/x.sock {\n handle_path /caf%C3%A9/* {\n python a:app\n}\n}")
    assert asked(request("/caf%c3%a9/x%20y?q")) == Target(0, "", b"/caf%c3%a9", b"/x%20y")


def test_what_belongs_to_caddy_is_for_no_app() -> None:
    asked = Asked("unix//run/x.sock {\n handle /static/* {\n file_server\n}\n handle {\n python a:app\n}\n}")
    assert asked(request("/static/x")) is None
    assert asked(request("/x")) == Target(0)
