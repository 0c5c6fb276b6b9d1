"""What the documents show is carried out: configurations by us and a real Caddy, code by a real worker, commands by
their own parsers."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from support.caddies import adapt
from support.daemon import daemon, free_port, get

from caddysnake.caddyfile.formatter import format_source
from caddysnake.channel.codes import CAUSES, STATUS
from caddysnake.cli.main import COMMANDS, Parser
from caddysnake.config.language.adapt import load
from caddysnake.config.language.directives import SUBDIRECTIVES
from caddysnake.config.plan.plan import plan
from caddysnake.config.stock.stock import stock
from caddysnake.http1.errors import BREACHES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(path for pattern in ("*.md", "docs/**/*.md", "examples/*/*.md") for path in ROOT.glob(pattern))
BLOCK = re.compile(r"^( *)```([a-z]+)([^\n]*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


PARTS = ("python", "handle", "handle_path", "reverse_proxy")
"""Directives that are shown without their site."""


class Shown(NamedTuple):
    """A block of a document."""

    place: str
    language: str
    title: str
    text: str


def shown() -> list[Shown]:
    found = []
    for path in DOCUMENTS:
        source = path.read_text()
        for match in BLOCK.finditer(source):
            indent, language, rest, text = match.groups()
            title = re.search(r'title="([^"]+)"', rest)
            line = source.count("\n", 0, match.start()) + 1
            plain = "".join(each.removeprefix(indent) for each in text.splitlines(keepends=True))
            found.append(Shown(f"{path.relative_to(ROOT)}:{line}", language, title[1] if title else "", plain))
    return found


SHOWN = shown()


def of(language: str) -> list[object]:
    return [pytest.param(each, id=each.place) for each in SHOWN if each.language == language and "<" not in each.text]


def whole(text: str) -> str:
    """A file of ``text``, which may be a part of a site, or of a block."""
    first = next(line.split()[0] for line in text.splitlines() if line and not line.startswith("#"))
    if first in SUBDIRECTIVES.settings:
        text = f"\tpython {{\nmodule_wsgi main:app\n{text}}}\n"
    return f"localhost {{\n{text}}}\n" if first in (*SUBDIRECTIVES.settings, *PARTS) else text


@pytest.mark.parametrize("block", of("caddyfile"))
def test_a_configuration_that_is_shown_is_one_for_us_and_for_caddy(block: Shown, tmp_path: Path) -> None:
    assert format_source(block.text) == block.text
    source = whole(block.text).encode()
    if b"\tpython" in source:
        plan(load(source, "Caddyfile", {}), cores=2)
    file = tmp_path / "Caddyfile"
    file.write_text(stock(source, "Caddyfile", {}, cores=2).text)
    assert adapt(file).error == ""


@pytest.mark.parametrize("block", of("console"))
def test_a_command_that_is_shown_is_understood(block: Shown) -> None:
    for line in re.findall(r"^\$ (.*)$", block.text, re.MULTILINE):
        words = shlex.split(line.partition(" | ")[0].partition(" > ")[0].partition(" && ")[0], comments=True)
        if words[:1] != ["caddysnake"] or words[1:] == ["COMMAND", "--help"]:
            continue
        assert words[1] in COMMANDS, line
        parser = Parser()
        import_module(f"caddysnake.cli.{words[1].replace('-', '_')}").add_arguments(parser)
        try:
            parser.parse_args(words[2:])
        except SystemExit:
            raise AssertionError(f"{block.place}: {line}") from None


def test_every_command_has_help_of_its_own() -> None:
    for name in COMMANDS:
        parser = argparse.ArgumentParser()
        module = import_module(f"caddysnake.cli.{name.replace('-', '_')}")
        module.add_arguments(parser)
        assert module.__doc__
        assert [action.dest for action in parser._actions if not action.help] == [], name


def interface(block: Shown) -> str:
    """Told by the framework that a snippet is for."""
    return "wsgi" if "flask" in block.text else "asgi"


@pytest.mark.system
def test_code_that_is_shown_with_a_name_is_served(tmp_path: Path) -> None:
    blocks = [each for each in SHOWN if each.language == "python" and each.title]
    assert len(blocks) >= 4
    text = ""
    for number, block in enumerate(blocks):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / block.title).write_text(block.text)
        module = block.title.removesuffix(".py")
        text += f"unix/{tmp_path}/{number}.sock {{\npython {{\nmodule_{interface(block)} {module}:app\n"
        text += f"working_dir {folder}\nworkers 1\n}}\n}}\n"
    with daemon(tmp_path, text) as process:
        for number, block in enumerate(blocks):
            status, content = get("/", path=tmp_path / f"{number}.sock", Host="localhost")
            # An app that has no page at / says so; it is the app that answers.
            assert status == (404 if "socketio" in block.text else 200), (block.place, content, process.log)


@pytest.mark.parametrize("block", of("python"))
def test_code_that_is_shown_can_be_compiled(block: Shown) -> None:
    compile(block.text, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_every_code_of_ours_is_explained_where_somebody_looks_for_it() -> None:
    page = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text()
    codes = {code for code, status in STATUS.items() if status not in (200, 408)}
    assert codes
    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []
    table = (ROOT / "docs" / "codes.md").read_text()
    assert [code for code in sorted({*STATUS, *CAUSES, *BREACHES}) if f"| `{code}` |" not in table] == []


@pytest.mark.system
def test_the_first_steps_lead_to_an_app_that_answers(tmp_path: Path) -> None:
    """The app and the file of the page Start, run with the command that it shows."""
    page = [each for each in SHOWN if each.place.startswith("docs/start.md")]
    (code,) = (each for each in page if each.title == "hello.py")
    file = next(each.text for each in page if each.language == "caddyfile" and "hello:app" in each.text)
    command = next(each.text for each in page if "caddysnake run --caddy --config Caddyfile" in each.text)
    assert command.strip() == "$ caddysnake run --caddy --config Caddyfile"
    (tmp_path / "hello.py").write_text(code.text)
    port = free_port()
    assert "127.0.0.1:8080" in file
    text = file.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    with daemon(tmp_path, text, *shlex.split(command)[3:]) as process:
        assert get("/", port) == (200, b"Hello\n"), process.log
