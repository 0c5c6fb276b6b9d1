"""One file, two readers: what Caddy gets, judged by a real Caddy.

The Go plugin's ``python`` can be imitated with a directive of Caddy's own that is moved to the place where the plugin
registers ``python``. So a file says the same before and after when Caddy adapts the imitation and our output to the
same routes, with the imitation's mark where our output has the block's socket.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.caddies import adapt, caddy, fmt, needs_caddy

from caddysnake.config.language.adapt import ConfigErrors, load
from caddysnake.config.plan.plan import plan
from caddysnake.config.stock.stock import Stock, stock
from caddysnake.daemon.supervisor.caddy.binary import knows_full_duplex

pytestmark = needs_caddy

Steps = list[Any]


def split(source: str, file: str = "Caddyfile") -> Stock:
    return stock(source.encode(), file, {"NAME": "value"}, socket_dir="/run/test")


def imitation(source: str) -> str:
    """*source* as Caddy alone can read it: ``templates`` stands in for ``python``, and carries the app's name."""
    lines = re.sub(
        r"^([ \t]*|.*\{ )python([ \t]+[*/@]\S*|[ \t]+\{args\[0\]\})?[ \t]+(\S+)$",
        lambda match: f"{match[1]}templates{match[2] or ''} {{\n\tmime {match[3]}\n}}",
        source,
        flags=re.MULTILINE,
    )
    lines = re.sub(r"^\s*(relays|socket_group) .*\n", "", lines, flags=re.MULTILINE)
    if "order python" in lines:
        return lines.replace("order python", "order templates")
    if lines.lstrip().startswith("{\n"):
        return lines.replace("{\n", "{\norder templates before route\n", 1)
    return "{\norder templates before route\n}\n" + lines


def routes(text: str, folder: Path, sockets: dict[str, str], binary: str | None = None) -> dict[str, Steps]:
    """What Caddy makes of a file, by listener, in a form that is the same for the same meaning."""
    file = folder / "adapted"
    file.write_text(text)
    answer = adapt(file, {"NAME": "value"}, binary)
    assert answer.config is not None, f"{answer.error}\n{text}"
    servers = answer.config.get("apps", {}).get("http", {}).get("servers", {})
    return {str(server["listen"]): steps(server.get("routes", ()), sockets) for server in servers.values()}


def steps(found: Any, sockets: dict[str, str]) -> Steps:
    """The handlers of some routes in order, each with its matcher. A group around everything counts for nothing."""
    flat: Steps = []
    for route in found:
        match = json.dumps(route.get("match"), sort_keys=True)
        grouped = "group" in route
        for handler in route["handle"]:
            name = handler["handler"]
            dial = handler.get("upstreams", [{}])[0].get("dial")
            if name == "subroute":
                flat += group(match, steps(handler.get("routes", ()), sockets), grouped=grouped)
            elif name == "templates":
                flat.append(["app", match, handler["mime_types"][0]])
            elif name == "reverse_proxy" and dial in sockets:
                flat.append(["app", match, sockets[dial]])
            else:
                flat.append([json.dumps(handler, sort_keys=True), match, grouped])
    return flat


def group(match: str, inner: Steps, *, grouped: bool) -> Steps:
    if match == "null" and not grouped:
        return inner
    if not grouped and len(inner) == 1 and inner[0][:2] == ["app", "null"]:
        return [["app", match, inner[0][2]]]
    return [["group", match, grouped, inner]]


def sockets_of(found: Stock) -> dict[str, str]:
    """The app behind each socket."""
    return {
        f"unix/{listener.path}": str(found.plan.apps[listener.app].block.module) for listener in found.plan.listeners
    }


def assert_same(source: str, folder: Path) -> Stock:
    """Caddy does with our output what the plugin would do with *source*."""
    found = split(source, str(folder / "Caddyfile"))
    assert routes(found.text, folder, sockets_of(found)) == routes(imitation(source), folder, {})
    return found


CASES = {
    "one_block": """
:8001 {
	python main:app
}
""",
    "behind_a_handle": """
:8001 {
	handle /static/* {
		file_server
	}
	python main:app
}
""",
    "before_respond": """
:8001 {
	respond "never seen"
	python main:app
}
""",
    "before_a_proxy": """
:8001 {
	reverse_proxy /longer/than/the/other/* localhost:3000
	python /a/* main:app
}
""",
    "beside_a_route": """
:8001 {
	route /longer/than/the/other/* {
		respond routed
	}
	python /a/* one:app
	@posts method POST
	python @posts two:app
	python three:app
	route {
		python four:app
		respond ok
	}
	header X-From {$NAME}
}
""",
    "inside_a_route": """
:8001 {
	route {
		header X 1
		python /a/* one:app
		respond /b ok
		python two:app
	}
}
""",
    "inside_handle_path": """
:8001 {
	handle_path /api/* {
		respond /health ok
		python api:app
	}
	handle {
		python site:app
	}
}
""",
    "several_sites": """
{
	auto_https off
}
one.example, http://two.example:8080 {
	python one:app
}
*.three.example {
	python two:app
}
""",
    "with_an_order_of_its_own": """
{
	order python before respond
}
:8001 {
	respond /health ok
	route /x {
		respond x
	}
	python main:app
}
""",
    "first_of_all": """
{
	order python first
}
:8001 {
	handle /static/* {
		file_server
	}
	header X 1
	python /a/* main:app
}
""",
    "last_of_all": """
{
	order python last
}
:8001 {
	reverse_proxy /x localhost:3000
	file_server /y
	python main:app
}
""",
    "out_of_a_snippet": """
(app) {
	encode gzip
	python {args[0]} {args[1]}
	header X-Snippet 1
}
(plain) {
	header X-Plain 1
}
:8001 {
	import plain
	import app /a/* one:app
	import app * two:app
	import plain
}
:8002 {
	import plain
}
""",
    "out_of_a_nested_snippet": """
(inner) {
	python {args[0]}
}
(outer) {
	handle /x/* {
		import inner {args[0]}
	}
}
:8001 {
	import outer one:app
}
:8002 {
	import outer one:app
}
""",
    "out_of_a_block_given_to_an_import": """
(twice) {
	handle_path /one/* {
		{block}
	}
	handle_path /two/* {
		{block}
	}
}
:8001 {
	import twice {
		python one:app
	}
}
""",
    "in_a_named_route": """
&(app) {
	header X 1
	python main:app
}
:8001 {
	invoke app
}
:8002 {
	handle_path /y/* {
		invoke app
	}
}
""",
    "matchers_of_every_kind": """
:8001 {
	@a {
		path /a/* /b/*
		not header X-Skip *
	}
	@b expression `{method} == "POST"`
	python @a one:app
	python @b two:app
	python * three:app
}
""",
    "odd_layout": """
:8001 { python /a one:app
	# a comment
	python	/bb   two:app
}
:8002
{
	python three:app
	}
""",
    "one_site_without_braces": """
:8001
python /a one:app
respond ok
""",
    "texts_over_several_lines": """
(page) {
	respond /page <<HTML
		<p>
		one
		</p>
		HTML
	python {args[0]}
	header X `two
	lines`
}
:8001 {
	import page main:app
	route /x {
		respond "three
		lines"
	}
}
""",
}


@pytest.mark.parametrize("source", CASES.values(), ids=CASES)
def test_caddy_does_what_the_plugin_would_do(tmp_path: Path, source: str) -> None:
    assert_same(source.lstrip("\n"), tmp_path)


# Named routes, blocks given to imports, their numbered arguments and heredocs came later.
NEWER = ("invoke", "{block}", "{args[", "<<")
OLD_CASES = {name: source for name, source in CASES.items() if not any(word in source for word in NEWER)}


@pytest.mark.parametrize("source", OLD_CASES.values(), ids=OLD_CASES)
def test_an_older_caddy_does_the_same(tmp_path: Path, source: str) -> None:
    debian = caddy("debian")
    found = split(source, str(tmp_path / "Caddyfile"))
    sockets = sockets_of(found)
    assert routes(found.text, tmp_path, sockets, debian) == routes(imitation(source), tmp_path, {}, debian)


MATCHERS = st.sampled_from(["", " /a/*", " /ab", " /abc/*", " @m", " *"])


def directives(depth: int) -> st.SearchStrategy[str]:
    """One directive, perhaps with others inside."""
    leaves = st.one_of(
        st.builds("python{} app{}:app".format, MATCHERS, st.integers(0, 3)),
        st.builds("respond{} ok".format, MATCHERS),
        st.builds("header{} X 1".format, MATCHERS),
        st.builds("reverse_proxy{} localhost:3000".format, MATCHERS),
        st.builds("error{} 404".format, st.sampled_from([" /a/*", " @m"])),
        st.builds("file_server{}".format, MATCHERS),
        st.just("rewrite /a /b"),
        st.just("abort /ab"),
    )
    if depth == 0:
        return leaves
    inside = st.lists(directives(depth - 1), max_size=4).map("\n".join)
    return st.one_of(
        leaves,
        st.builds("route{} {{\n{}\n}}".format, MATCHERS, inside),
        st.builds("handle{} {{\n{}\n}}".format, MATCHERS, inside),
        st.builds("handle_path /p/* {{\n{}\n}}".format, inside),
    )


ORDERS = st.sampled_from(
    ["", "{\norder python first\n}\n", "{\norder python last\n}\n", "{\norder python after header\n}\n"]
)


@given(ORDERS, st.lists(directives(2), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_site_keeps_its_order(tmp_path: Path, order: str, lines: list[str]) -> None:
    body = "\n".join(lines)
    source = f"{order}:8001 {{\n@m method POST\n{body}\n}}\n"
    assert_same(source, tmp_path)


@given(
    st.lists(directives(1), min_size=1, max_size=3),
    st.lists(
        st.one_of(directives(1), st.sampled_from(["import one", "import two", "handle /i/* {\nimport one\n}"])),
        max_size=5,
    ),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_use_of_snippets_keeps_its_meaning(tmp_path: Path, snippet: list[str], lines: list[str]) -> None:
    """What cannot be moved may be refused; what is printed is right."""
    inside = "\n".join(snippet).replace(" @m", "")
    body = "\n".join(lines)
    source = f"(one) {{\n{inside}\n}}\n(two) {{\nheader X 2\nimport one\n}}\n:8001 {{\n@m method POST\n{body}\n}}\n"
    try:
        assert_same(source, tmp_path)
    except ConfigErrors as exc:
        assert "cannot be moved" in str(exc)  # noqa: PT017


# What the text looks like


def test_only_the_block_changes() -> None:
    found = split(
        """\
# The header of the file.
{
	email me@example.com # mine
}

example.com {
	# What Caddy does.
	encode gzip

	python { # ours
		# goes with it
		module_wsgi main:app
	}

	header X-From {$NAME:nobody}
}
"""
    )
    (listener,) = found.plan.listeners
    assert (
        found.text
        == f"""\
# The header of the file.
{{
	email me@example.com # mine
}}

example.com {{
	# What Caddy does.
	encode gzip

	reverse_proxy {listener} {{
		transport http {{
			compression off
			keepalive_idle_conns_per_host 256
		}}
	}}

	header X-From {{$NAME:nobody}}
}}
"""
    )


def test_a_file_without_python_stays_as_it_is() -> None:
    source = "# a comment\n:80 {\n  respond   ok\n}\n"
    assert split(source).text == source


def test_our_own_sites_and_options_go() -> None:
    source = """\
{
	relays 2
	admin off
	socket_group caddy # for Caddy
	order python before route
}

unix//run/ours.sock {
	python ours:app
}

tcp/127.0.0.1:9000, example.com, unix//run/other.sock {
	python theirs:app
}
"""
    found = split(source)
    assert "ours" not in found.text
    assert "relays" not in found.text
    assert "socket_group" not in found.text
    assert "order" not in found.text
    assert "\tadmin off\n" in found.text
    assert "\nexample.com {\n" in found.text
    assert sorted(str(listener) for listener in found.plan.listeners if not listener.own) == [
        "tcp/127.0.0.1:9000",
        "unix//run/other.sock",
        "unix//run/ours.sock",
    ]


def test_an_unused_snippet_with_python_goes_too() -> None:
    assert "python" not in split("(x) {\n\tpython a:b\n}\n:80 {\n\timport x\n}\n").text


def test_imported_files_get_absolute_names(tmp_path: Path) -> None:
    (tmp_path / "common.conf").write_text("encode gzip\n")
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "one.conf").write_text(":8001 {\n\trespond ok\n}\n")
    source = "import sites/*.conf\n:8002 {\n\timport common.conf\n\tpython a:b\n}\n"
    found = split(source, str(tmp_path / "Caddyfile"))
    assert f"import {tmp_path}/sites/*.conf\n" in found.text
    assert f"\timport {tmp_path}/common.conf\n" in found.text


def test_sites_of_imported_files_are_written_out(tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    for name in ("one", "two"):
        (tmp_path / "sites" / f"{name}.conf").write_text(
            f'{name}.example {{\n\trespond /`health` "o k"\n\tpython {name}:app\n}}\n'
        )
    source = "{\n\temail a@b.example\n}\nimport sites/*.conf\n:8002 {\n\tpython main:app\n}\n"
    found = assert_same_after_import(source, tmp_path)
    assert "import" not in found.text
    assert len(found.plan.apps) == 3


def assert_same_after_import(source: str, folder: Path) -> Stock:
    """As :func:`assert_same`, with the imported files imitated too."""
    found = split(source, str(folder / "Caddyfile"))
    for path in folder.rglob("*.conf"):
        path.write_text(imitation(path.read_text()).partition("}\n")[2])
    assert routes(found.text, folder, sockets_of(found)) == routes(imitation(source), folder, {})
    return found


def test_a_block_of_an_imported_file_is_written_out_where_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "app.conf").write_text("header X 1\npython main:app\n")
    found = assert_same_after_import("# kept\n:8001 {\n\t# kept too\n\timport app.conf\n\trespond ok\n}\n", tmp_path)
    assert found.text.startswith("# kept\n:8001 {\n\t# kept too\n\theader X 1\n\troute {\n")


def test_a_formatted_file_stays_formatted(tmp_path: Path) -> None:
    sites = ":8001 {\n\tpython a:b\n}\n\nunix//run/x.sock {\n\tpython c:d\n}\n\n:8002 {\n\trespond ok\n}\n"
    source = "{\n\trelays 2\n}\n\n" + sites
    file = tmp_path / "adapted"
    file.write_text(split(source).text)
    assert "not formatted" not in adapt(file).error


def test_the_sockets_are_those_that_run_without_caddy_listens_on() -> None:
    source = "example.com {\n\tpython /a/* a:b\n\tpython c:d\n}\n"
    alone = plan(load(source.encode(), "Caddyfile", {}), cores=1, socket_dir="/run/test")
    found = split(source)
    assert alone.listeners == found.plan.listeners
    for listener in alone.listeners:
        assert str(listener) in found.text


def test_a_dynamic_block_has_one_socket_and_takes_the_relay() -> None:
    found = split("*.example.com {\n\tpython {\n\t\tmodule_wsgi {labels.2}:app\n\t}\n}\n")
    (listener,) = found.plan.listeners
    assert (listener.kind, listener.own) == ("relay", True)


def test_errors_of_the_file_are_raised_as_ever() -> None:
    with pytest.raises(ConfigErrors) as caught:
        split(":80 {\n\tpython {\n\t\tworkers none\n\t}\n}\n")
    assert caught.value.errors[0].line == 3


def test_what_cannot_be_moved_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "routes.conf").write_text("route /x/* {\n\trespond x\n}\n")
    with pytest.raises(ConfigErrors) as caught:
        split(":80 {\n\timport routes.conf\n\trespond ok\n\tpython main:app\n}\n", str(tmp_path / "Caddyfile"))
    assert "route" in str(caught.value)


def test_caddy_is_told_whom_to_ask_for_certificates(tmp_path: Path) -> None:
    source = "{\n\ton_demand_ask 127.0.0.1:9123\n}\n\n:8001 {\n\tpython a:b\n}\n"
    found = split(source)
    assert "\ton_demand_tls {\n\t\task http://127.0.0.1:9123\n\t}\n" in found.text
    file = tmp_path / "adapted"
    file.write_text(found.text)
    assert "http://127.0.0.1:9123" in json.dumps(adapt(file).config)


def test_what_the_file_says_itself_of_on_demand_tls_stays() -> None:
    own = "\ton_demand_tls {\n\t\task http://127.0.0.1:1/mine\n\t}\n"
    found = split(f"{{\n\ton_demand_ask 127.0.0.1:9123\n{own}}}\n\n:8001 {{\n\tpython a:b\n}}\n")
    assert own in found.text
    assert "9123" not in found.text


def test_a_file_that_is_all_ours_leaves_a_file_that_caddy_takes(tmp_path: Path) -> None:
    found = split("unix//run/x.sock {\n\tpython main:app\n}\n")
    assert "No site is Caddy's" in found.text
    file = tmp_path / "adapted"
    file.write_text(found.text)
    assert adapt(file).error == ""


# Answers to requests that are not read


APP = "http://localhost {\n\tpython {\n\t\tmodule_wsgi main:app\n\t}\n}\n"


def with_full_duplex(source: str) -> str:
    return stock(source.encode(), "Caddyfile", {}, socket_dir="/run/test", full_duplex=True).text


def full_duplex_servers(text: str, folder: Path) -> list[bool]:
    """What the current Caddy makes of it, by server."""
    file = folder / "Caddyfile"
    file.write_text(text)
    answer = adapt(file)
    assert answer.config is not None, f"{answer.error}\n{text}"
    servers = answer.config["apps"]["http"]["servers"]
    return [server.get("enable_full_duplex", False) for server in servers.values()]


@pytest.mark.parametrize(
    "options",
    [
        "",
        "# A site.\n\n",
        "{\n}\n\n",
        "{\n\tadmin off\n}\n\n",
        "{\n\tservers {\n\t\ttrusted_proxies static private_ranges\n\t}\n}\n\n",
        "{\n\tservers {\n\t\tenable_full_duplex\n\t}\n}\n\n",
        "{\n\tservers :80 {\n\t\tname plain\n\t}\n}\n\n",
        "{\n\tservers :4711 {\n\t\tname other\n\t}\n}\n\n",
        "{\n\tsocket_group caddy\n}\n\n",
        "(snippet) {\n\tencode gzip\n}\n\n",
    ],
)
def test_full_duplex_is_enabled_for_every_server(options: str, tmp_path: Path) -> None:
    text = with_full_duplex(options + APP)
    assert full_duplex_servers(text, tmp_path) == [True]
    assert fmt(text) == text


def test_full_duplex_is_left_out_where_the_options_are_imported(tmp_path: Path) -> None:
    (tmp_path / "options").write_text("{\n\tadmin off\n}\n")
    source = f"import {tmp_path}/options\n" + APP
    assert full_duplex_servers(with_full_duplex(source), tmp_path) == [False]


def test_a_caddyfile_without_an_app_stays_without_full_duplex() -> None:
    assert "full_duplex" not in with_full_duplex("http://localhost {\n\trespond ok\n}\n")


def test_the_current_caddy_knows_full_duplex_and_debians_does_not() -> None:
    assert knows_full_duplex(caddy("current"))
    assert not knows_full_duplex(caddy("debian"))
    assert not knows_full_duplex("/nonexistent/caddy")
