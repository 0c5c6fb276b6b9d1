"""How a Caddy that is supervised can be told of a new configuration: where the admin API of Caddy itself listens.

Caddy's default, ``localhost:2019``, is shared by all Caddys of a machine, which may even listen there side by side. One
that we start gets a socket that only its user reaches, unless its file says where it is to listen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ...caddyfile.errors import CaddyfileError
from ...caddyfile.tokens import Token
from ..language.adapt import ConfigErrors, read
from ..language.models import GlobalOptions
from .expansion import items
from .printing import print_token
from .sourcetext import Edit, SourceText

OFF: Final = "off"
CADDYS_DEFAULT: Final = "localhost:2019"


def with_admin(
    text: str, file: str, environ: Mapping[str, str], options: GlobalOptions, address: str, *, is_default: bool = False
) -> tuple[str, str]:
    """Caddy's part ``text``, with ``address`` for ``admin`` unless ``options`` have it; and what holds, or ``off``."""
    said = options.admin
    if said is not None:
        return text, OFF if said.disabled else (said.listen or CADDYS_DEFAULT).partition("|")[0]
    source = SourceText(text.encode(), file, environ)
    line = f"\tadmin {print_token(Token(address, file, 1, 1))}\n"
    blocks = [item for item in items(source.tokens) if item.kind == "options"]
    if blocks:
        behind = source.end(blocks[0].tokens[0])
        edited = source.edited([Edit(behind, behind, f"\n{line.rstrip()}")])
    else:
        edited = f"{{\n{line}}}\n\n{text}"
    try:
        read(edited.encode(), file, environ)
    except (CaddyfileError, ConfigErrors):  # the options are in a file that is imported
        return text, address if is_default else CADDYS_DEFAULT
    return edited, address
