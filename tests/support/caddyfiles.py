"""Generated Caddyfiles: mostly right, with every construct of the language, and sometimes a piece out of place."""

from __future__ import annotations

from hypothesis import strategies as st

_PIECES = (
    *("a", "b", "x", "{", "}", " ", " ", " ", "\n", '"', "`", "#", "\\", "<<E\n", "\nE", "\nE ", "E", "{}", "\t", "<"),
    *("{x}", '"q r"', "`t u`", "\r\n", "\r", "{host}", "{path.0}", "{args[0]}", "{block}", "{$E_SET}", "{$E_NO:d}"),
    *("\\{", '\\"', "\\\n", " \\\n ", "# c", " # c\n", "\u00a0", "\x1c", "<<", "import", "é", "{header.X-Y}"),
    *("{re.a.b}", "\\<<E", '"<<E"', "# c\\\n"),
)
_MATCHERS = ("", "", "", "/a ", "/ab* ", "/b ", "* ", "@m ", "@n ", '"/q" ', "/abc ")
_BODIES = ("ok", "hi", "{path}", '"x y"', "{args[0]}", "{args[1]}x", '"{host} {args[0]}"', "`{args[1]}`", "x{args[:]}")
_PLAIN = (
    *("rewrite /a /b", "rewrite * /c", "rewrite /x", "root * /srv", "root /a /srv", "root /srv", "vars a b"),
    *("vars /x a c", "vars /xy b c", "uri strip_prefix /x", "method GET", "redir /a /b", "reverse_proxy a:1"),
    *("log_skip", "metrics /m", "templates", "file_server", "encode gzip", "header X 1", "header /a X {args[0]}"),
    *("header @m Y 2", "abort", "invoke r"),
)
_IMPORTS = (
    *("import s", "import t", "import u", "import f.conf", "import g/*", "import s a", 'import t a "b c"'),
    *("import s {host} \\{x\\}", "import nope", "import n*", "import s a b", "import top", "import u {\n}"),
)
_DEFINITIONS = (
    *("@m path /m", "@n method GET", "@m {\npath /x\npath /y\nmethod GET\n}", "@n not path /z", "@n header A b"),
    *("@n {\nnot {\npath /q\n}\n}", "@m", "@n `true`", "@n expression a b", "@m path /only*", "@m path_regexp a"),
)
_ODD = (
    *("{block}", "{blocks.a}", "{blocks.b}", "respond {blocks.b}", "# comment", "", "respond \\\n ok"),
    *("respond <<E\n  x\n  E", "}", "{", "handle {", "nope", "respond ok }", "handle { }", "import", '"import" s'),
    *('respond "{" "}"', "{args[:]}", "respond {args[:1]}", "import {args[0]}", "bind a b", "log", "respond ok # x\\"),
    *("file_server {\nindex {args[:]} z\n}", "file_server {\nindex {args[1:]}\n}", "respond {args.0}", "handle /x*{"),
)
_BLOCKS = ("handle", "handle /a*", "handle @m", "handle /ab", "handle_path /x/*", "route", "route /r*", "handle *")
# No two of them take every request of one port: what Caddy does with the second is of no use to anyone.
_SITES = (
    *(":80", ":81", "http://a.example", "http://*.example", "a.example", "http://b.example, http://c.example"),
    *("http://a.example/p", "http://localhost:82", ":83, :84", "http://a.example http://longer.example"),
    *("http://b.a.example", "*.b.a.example, http://x", "[::1]", "http://{host}", "HTTP://Upper.example"),
)


def arguments() -> st.SearchStrategy[str]:
    """Text that stands where a directive's arguments are, of pieces that matter to a lexer."""
    return st.lists(st.sampled_from(_PIECES), min_size=1, max_size=9).map("".join)


@st.composite
def _lines(draw: st.DrawFn, depth: int = 0) -> str:
    return "".join(f"{draw(_line(depth))}\n" for _ in range(draw(st.integers(0, 3))))


@st.composite
def _line(draw: st.DrawFn, depth: int) -> str:
    kind = draw(st.integers(0, 19))
    if kind < 6:
        return f"respond {draw(st.sampled_from(_MATCHERS))}{draw(st.sampled_from(_BODIES))}"
    if kind < 10:
        return draw(st.sampled_from(_PLAIN))
    if kind < 12 or depth > 2:
        return draw(st.sampled_from(_IMPORTS))
    if kind < 13:
        return f"import {draw(st.sampled_from('stu'))} a {{\n{draw(_lines(depth + 1))}}}"
    if kind < 14:
        rest = draw(st.sampled_from(("x", "respond z", "/q hi")))
        return f"import u {{\na {{\n{draw(_lines(depth + 1))}}}\nb {rest}\n}}"
    if kind < 17:
        return f"{draw(st.sampled_from(_BLOCKS))} {{\n{draw(_lines(depth + 1))}}}"
    if kind < 19:
        return draw(st.sampled_from(_DEFINITIONS))
    return draw(st.sampled_from(_ODD))


@st.composite
def caddyfiles(draw: st.DrawFn) -> str:
    """A whole file: options, snippets, a named route, and one to three sites."""
    parts: list[str] = []
    if draw(st.integers(0, 9)) == 0:
        order = st.sampled_from(("", "order respond first\n", "order header after respond\n", "debug\n"))
        parts.append(f"{{\n{draw(order)}}}\n")
    parts += [f"({name}) {{\n{draw(_lines())}}}\n" for name in "stu" if draw(st.integers(0, 4))]
    if draw(st.integers(0, 6)) == 0:
        parts.append(f"(top) {{\n:85 {{\n{draw(_lines(1))}}}\n(inner) {{\nrespond {{args[0]}}\n}}\n}}\nimport top z\n")
    if draw(st.booleans()):
        parts.append(f"&(r) {{\n{draw(_lines())}}}\n")
    sites = draw(st.lists(st.sampled_from(_SITES), min_size=1, max_size=3))
    parts += [draw(_site(address)) for address in sites]
    return "".join(parts)


@st.composite
def _site(draw: st.DrawFn, address: str) -> str:
    lines = draw(_lines())
    form = draw(st.integers(0, 9))
    if form == 0:
        return f"{address}\n{{\n{lines}}}\n"
    if form == 1:
        return f"{address}\n{lines}"
    if form == 2:
        return f"{address} {{ respond x\n{lines}}}\n"
    return f"{address} {{\n{lines}}}\n"


_LAYOUT_PIECES = (
    *("a", "b", "{", "}", " ", "\n", '"', "`", "#", "\\", "<<E", "\nE\n", "E", " {\n", "}\n", "\t", "  ", "<", "{x}"),
    *('"q {"', "`t`", "\r\n", "\n\n\n", " {", "foo bar", "# c\n", "import x\n", "\n}\n", " \\\n", ' "a\nb"'),
)


def layouts() -> st.SearchStrategy[str]:
    """Text of pieces that matter to a formatter, right or wrong."""
    return st.lists(st.sampled_from(_LAYOUT_PIECES), min_size=1, max_size=12).map("".join)
