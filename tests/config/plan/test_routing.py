"""From a configuration to the routes that a relay is told, and what is wrong with them, at its line."""

from __future__ import annotations

import json

import pytest

from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.config.language.adapt import load
from caddysnake.config.plan.plan import plan
from caddysnake.config.plan.routing import app_template, settled_fields, tables
from caddysnake.matchers.table import Table
from caddysnake.placeholders.names import PlaceholderError

ENVIRON = {"TENANTS": "/srv/tenants", "STAGE": "live"}


def told(text: str, *, own_sockets: bool = False) -> tuple[list[Table], list[CaddyfileError]]:
    config = load(text.encode(), "Caddyfile", {})
    return tables(config, plan(config, cores=1, own_sockets=own_sockets), ENVIRON, own_sockets=own_sockets)


def table(text: str) -> Table:
    found, errors = told(text)
    assert [str(error) for error in errors] == []
    assert len(found) == 1
    assert json.loads(json.dumps(found[0])) == found[0]
    return found[0]


def test_a_direct_socket_leads_to_its_app_and_nowhere_else() -> None:
    found = table("unix//run/x.sock {\n python main:app\n}")
    assert found == {"sites": [{"routes": [{"app": 0}]}], "templates": {}, "variables": {}}


def test_a_tenants_app_is_told_with_what_requests_decide_and_no_more() -> None:
    found = table(
        """
        unix//run/x.sock {
            python {
                module_asgi "{labels.2}:app"
                working_dir "{env.TENANTS}/{labels.2}/"
                venv /srv/venv
                env_var TENANT {labels.2}
                env_var STAGE {env.STAGE}
            }
        }
        """
    )
    label = "{http.request.host.labels.2}"
    assert found["templates"] == {
        "0": [
            ["module", "module", label],
            ["working_dir", "path", f"/srv/tenants/{label}/"],
            ["env_var[0]", "environment", label],
        ]
    }


def test_sites_come_in_the_order_in_which_caddy_tries_them() -> None:
    found = table(
        """
        {
            default_bind unix//run/x.sock
        }
        *.example.com {
            python wild:app
        }
        example.com/docs/* {
            python docs:app
        }
        example.com {
            python exact:app
        }
        """
    )
    assert [site["match"] for site in found["sites"]] == [
        [{"host": ["example.com"], "path": ["/docs/*"]}],
        [{"host": ["example.com"]}],
        [{"host": ["*.example.com"]}],
    ]


def test_routes_keep_groups_prefixes_and_what_belongs_to_caddy() -> None:
    found = table(
        """
        unix//run/x.sock {
            handle_path /app/* {
                python /x* x:app
                python y:app
            }
            handle /static/* {
                file_server
            }
        }
        """
    )
    (site,) = found["sites"]
    static, app = site["routes"]
    assert static == {"match": {"path": ["/static/*"]}, "group": app["group"], "foreign": True}
    assert app == {
        "match": {"path": ["/app/*"]},
        "group": app["group"],
        "strip": "/app",
        "routes": [{"match": {"path": ["/x*"]}, "app": 0}, {"app": 1}],
    }


def test_ports_are_told_where_they_tell_two_sites_apart() -> None:
    found = table(
        """
        {
            default_bind unix//run/x.sock
        }
        http://a.test:8080, http://b.test:8081 {
            python a:app
        }
        http://a.test {
            python b:app
        }
        https://c.test {
            python c:app
        }
        """
    )
    assert [site.get("ports") for site in found["sites"]] == [[8080, 8081], [80], None]


def test_a_block_of_caddys_site_with_its_own_socket_takes_every_request() -> None:
    found, errors = told(
        "example.com {\n python /a* a:app\n python {\n module_wsgi {labels.1}:app\n}\n}", own_sockets=True
    )
    assert errors == []
    assert [table["sites"] for table in found] == [[{"routes": [{"app": 0}]}], [{"routes": [{"app": 1}]}]]
    assert [list(table["templates"]) for table in found] == [[], ["1"]]


SITE = "unix//run/x.sock {{\n {}\n}}"
APP = "module_wsgi a:app\n"
ROUTED = "python @m a:app\n python b:app"
WRONG = (
    ("python {\n module_wsgi {http.request.hst}:app\n }", 3, "unknown placeholder {http.request.hst} (did you mean"),
    (
        f"python {{\n {APP} venv /v/{{tls_version}}\n }}",
        4,
        "the placeholder {http.request.tls.version} cannot be known",
    ),
    (f"python {{\n {APP} env_var A {{uuid}}\n }}", 4, "{http.request.uuid} is different for every request"),
    (f"python {{\n {APP} env_var A {{time.now}}\n }}", 4, "{time.now} is different for every request"),
    (f"@m expression `true`\n {ROUTED}", 3, "the matcher expression is not supported here"),
    (
        f"@m path_regexp (?=a)\n {ROUTED}",
        3,
        "in the matcher path_regexp: in the regular expression '(?=a)': invalid perl operator",
    ),
    (f"@m vars root /srv\n {ROUTED}", 3, "the variable root is Caddy's own"),
    (f"@m remote_ip 10/8\n {ROUTED}", 3, "in the matcher remote_ip: '10/8' is neither"),
    (
        f"python {{\n {APP} venv /v/{{re.x.1}}\n }}",
        4,
        "no regular expression of this socket's sites captures {http.regexp.",
    ),
    ("handle_path /{nope}/* {\n  python a:app\n }", 2, "unknown placeholder {nope}"),
)


@pytest.mark.parametrize(("body", "line", "message"), WRONG, ids=[message[:40] for _, _, message in WRONG])
def test_what_cannot_be_meant_is_an_error_at_its_line(body: str, line: int, message: str) -> None:
    _, errors = told(SITE.format(body))
    assert str(errors[0]).startswith(f"Caddyfile:{line}: {message}"), str(errors[0])


def test_a_capture_that_nothing_makes_is_answered_with_those_that_there_are() -> None:
    body = f"@m path_regexp x ^/(a)\n python @m {{\n {APP} venv /v/{{re.y.1}}\n }}"
    _, (error,) = told(SITE.format(body))
    assert error.hint == "there are {http.regexp.0}, {http.regexp.1}, {http.regexp.x.0}, {http.regexp.x.1}"


def test_a_capture_that_a_matcher_of_the_socket_makes_is_known() -> None:
    body = "@m path_regexp x ^/(a)\n python @m {\n  module_wsgi a:app\n  working_dir /srv/{re.x.1}\n }"
    assert table(SITE.format(body))["templates"]["0"] == [["working_dir", "path", "/srv/{http.regexp.x.1}"]]


def test_a_capture_of_caddys_own_matcher_is_not() -> None:
    text = (
        "example.com {\n @m path_regexp x ^/(a)\n python @m {\n  module_wsgi a:app\n  working_dir /srv/{re.x.1}\n }\n}"
    )
    _, errors = told(text, own_sockets=True)
    assert "Caddy's regular expression captured" in str(errors[0])


def test_the_values_of_a_block_are_settled_by_name() -> None:
    body = "module_asgi main:app\n working_dir {env.TENANTS}/a\\{b\\}\n env_var A {labels.0}"
    config = load(SITE.format(f"python {{\n {body}\n}}").encode(), "Caddyfile", {})
    (app,) = config.apps()
    assert settled_fields(app, ENVIRON) == {
        "module": "main",
        "variable": "app",
        "working_dir": "/srv/tenants/a{b}",
        "env_var[0]": "{http.request.host.labels.0}",
    }
    assert app_template(4, app, ENVIRON).resolve("test") == {"env_var[0]": "test"}


def test_the_template_of_a_block_with_an_unknown_placeholder_is_refused() -> None:
    config = load(b"unix//run/x.sock {\n python {\n module_asgi {http.nope}:app\n}\n}", "Caddyfile", {})
    with pytest.raises(PlaceholderError):
        app_template(0, config.apps()[0], {})
