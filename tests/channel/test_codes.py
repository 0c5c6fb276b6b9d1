"""One table of stable codes: what the source answers is in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from caddysnake.channel.codes import STATUS

ROOT = Path(__file__).resolve().parents[2]
_MAKES = {"Answer", "ProtocolError", "Refusal", "failed", "plain"}
_OF_HTTP = {"websocket-version", "websocket-key", "websocket-body"}


def answered() -> Iterator[tuple[str, int, str]]:
    """Each status and code that is written down together, and where."""
    for folder in ("daemon", "relay", "worker"):
        for path in sorted((ROOT / "caddysnake" / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if not isinstance(node, ast.Call) or len(node.args) < 2:
                    continue
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                match [each.value if isinstance(each, ast.Constant) else None for each in node.args[:2]]:
                    case [int(status), str(code)] if name in _MAKES:
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", status, code


def test_every_answer_has_the_status_of_the_table() -> None:
    found = [each for each in answered() if each[2] not in _OF_HTTP]
    assert len(found) > 5
    assert [each for each in found if STATUS.get(each[2]) != each[1]] == []
