"""The same sites and routes in a stock Caddy: the app that we choose is the one that answers there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from support.caddies import caddy
from support.daemon import Process, free_port
from support.heads import HOSTS, REQUESTS, head, request
from support.oracle import Oracle, wait_for_port

from caddysnake.config.language.adapt import load
from caddysnake.config.plan.plan import plan
from caddysnake.config.plan.routing import tables
from caddysnake.matchers.router import Router
from caddysnake.placeholders import uris

# In each the line "python … aN:app" is an app, and PORT the one port of all sites.
FILES = {
    "one site": "http://ok.test:PORT {\n python a1:app\n}",
    "hosts": """
        http://ok.test:PORT {
            python a1:app
        }
        http://*.ok.test:PORT {
            python a2:app
        }
        http://one.ok.test:PORT, http://a.b.c.d:PORT {
            python a3:app
        }
        http://*.test:PORT {
            python a4:app
        }
        http://:PORT {
            python a5:app
        }
    """,
    "hosts without a rest": """
        http://OK.test:PORT, http://*.d:PORT, http://[::1]:PORT {
            python /a* a1:app
        }
        http://*.*.c.d:PORT {
            python a2:app
        }
        http://*:PORT {
            python a3:app
        }
        http://127.0.0.1:PORT {
            python a4:app
        }
    """,
    "paths in addresses": """
        http://ok.test:PORT/foo/* {
            python a1:app
        }
        http://ok.test:PORT/foo* {
            python a2:app
        }
        http://ok.test:PORT/a {
            python a3:app
        }
        http://ok.test:PORT {
            python a4:app
        }
        http://:PORT/a {
            python a5:app
        }
    """,
    "one block, several addresses": """
        http://ok.test:PORT/foo, http://one.ok.test:PORT, http://*.ok.test:PORT/a {
            python a1:app
        }
        http://a:PORT, http://:PORT/a {
            python a2:app
        }
    """,
    "matchers and their order": """
        http://:PORT {
            @post method POST
            @number path_regexp ^/api/v([0-9]+)/(.*)
            @marked {
                header X-A *
                not path /a*
            }
            python @marked a5:app
            python /foo/* a1:app
            python /foo/bar* a2:app
            python /foo a3:app
            python @post a4:app
            python @number a6:app
            python a7:app
        }
    """,
    "handles": """
        http://:PORT {
            handle_path /app/sub/* {
                python a1:app
            }
            handle_path /app/* {
                python a2:app
            }
            handle /foo/* {
                python /foo/bar* a3:app
            }
            handle /foo* {
                python a4:app
            }
            handle /a {
                python a5:app
            }
        }
    """,
    "handle_path without a match inside goes on with what is left": """
        http://:PORT {
            handle_path /app/* {
                @sub path /sub/*
                python @sub a1:app
            }
            route {
                python /x a2:app
                python /app* a3:app
                python a4:app
            }
        }
    """,
    "stripping": """
        http://:PORT {
            handle_path /app* {
                python a1:app
            }
            handle_path /foo/bar {
                python a2:app
            }
            handle_path /x//y/* {
                python a3:app
            }
            handle_path /%C3%A9/* {
                python a4:app
            }
            handle_path /\u00e9%2F* {
                python a6:app
            }
            handle_path /* {
                python a5:app
            }
        }
    """,
    "nested": """
        http://:PORT {
            handle /app/* {
                handle_path /app/sub/* {
                    python a1:app
                }
                handle_path /app/* {
                    route /x* {
                        python /x%2Fy a2:app
                        python a3:app
                    }
                }
                handle {
                    python a4:app
                }
            }
            route /foo* {
                python /foo/*/baz a5:app
                handle_path /foo/* {
                    python /bar* a6:app
                }
                python /x* a7:app
            }
        }
    """,
    "named routes": """
        &(inner) {
            python /foo* a1:app
            handle_path /app/* {
                python a2:app
            }
        }
        http://ok.test:PORT {
            invoke inner
        }
        http://*.test:PORT {
            handle /a* {
                invoke inner
            }
            handle {
                python a3:app
            }
        }
    """,
    "captures and placeholders in matchers": """
        http://:PORT {
            @again {
                path_regexp seg ^/([^/]+)/
                path /{re.seg.1}/*
            }
            @host host {query.a}.test ok.{env.TLD}
            @path path /{query.p} /{env.STAGE}*
            @stage vars {env.STAGE} foo
            @not_stage vars {env.STAGE} bar
            @mark header X-A {env.STAGE}
            python @path a1:app
            python @mark a2:app
            python @host a3:app
            python @not_stage a4:app
            python @stage a5:app
        }
    """,
    "queries, fields, addresses": """
        http://:PORT {
            @a query a=1
            @b query b=* A=3
            @none query ""
            @grpc protocol grpc
            @cookie header_regexp Cookie s=(.)
            @remote remote_ip 127.0.0.0/8
            @client client_ip 9.9.9.9
            handle @a {
                python a1:app
            }
            handle @b {
                python a2:app
            }
            handle @grpc {
                python a3:app
            }
            handle @cookie {
                python a4:app
            }
            handle @client {
                python a5:app
            }
            handle @none {
                python /foo* a6:app
            }
            handle @remote {
                python a7:app
            }
        }
    """,
}
ENVIRON = {"STAGE": "foo", "TLD": "test"}
_APP = re.compile(r"python ((?:\S+ )?)a([0-9]+):app")

ASKED = (
    *REQUESTS,
    *(request(target, host=host) for host in HOSTS[::4] for target in ("/foo/bar", "/app/x", "/a")),
    request("/app/sub/x%2Fy", "X-A: 1", host="one.ok.test"),
    request("/APP/Sub/%2e%2e/x?q=1"),
    request("/app/x/../sub/y"),
    request("/app/x%2Fy/z"),
    request("/foo/x", host="ok.test"),
    request("/foo/x", method="POST"),
    request("/api/v2/x", "X-A: 1"),
)


@pytest.fixture(scope="module", params=FILES)
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Oracle, Ours]]:
    folder = tmp_path_factory.mktemp("caddy")
    text, port = FILES[request.param], free_port()
    path = folder / "Caddyfile"
    options = "{\n admin off\n auto_https off\n order respond before route\n}\n"
    path.write_text(options + _APP.sub(r'respond \1"\2 {path} {uri}"', text).replace("PORT", str(port)))
    process = Process([caddy("current"), "run", "--config", str(path), "--adapter", "caddyfile"], folder, "c", ENVIRON)
    try:
        wait_for_port(port, process)
        yield Oracle(process, {"it": port}), Ours(text.replace("PORT", str(port)))
    finally:
        process.close()


class Ours:
    """What we make of a file."""

    def __init__(self, text: str) -> None:
        config = load(f"{{\n default_bind unix//run/x.sock\n}}\n{text}".encode(), "Caddyfile", {})
        planned = plan(config, cores=1)
        found, errors = tables(config, planned, ENVIRON)
        assert [str(error) for error in errors] == []
        self._modules = [spec.module for spec in planned.apps]
        # As the relay gets it.
        self._router = Router(json.loads(json.dumps(found)))

    def answer(self, raw: bytes) -> str:
        """The number in the app's name and the path it sees, as Caddy's answer has them; empty for no app."""
        asked = head(raw)
        target = self._router.route(0, asked, "127.0.0.1", False)  # type: ignore[arg-type]
        if target is None:
            return ""
        path = target.path if target.prefix else asked.path
        query = b"?" + asked.query if b"?" in asked.target else b""
        decoded, escaped = uris.unescape(path), uris.escaped_path(path).encode() or b"/"
        return f"{self._modules[target.route][1:]} {uris.text(decoded)} {uris.text(escaped + query)}"


def test_each_request_reaches_the_app_that_answers_it_in_caddy(judged: tuple[Oracle, Ours]) -> None:
    judge, ours = judged
    for raw in ASKED:
        answer = judge.ask(raw, "it")
        if answer.status != 400:
            assert (raw, ours.answer(raw)) == (raw, answer.text)
