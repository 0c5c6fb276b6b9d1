"""The ``env_file`` format.

A file is lines of ``KEY=VALUE``. Empty lines and lines that begin with ``#`` are skipped; ``export`` in front of a key
is allowed; one pair of matching quotes around a value is removed; a ``#`` behind white space, outside of quotes, begins
a comment, as in python-dotenv and docker compose. There are no escapes, no values over several lines and no
interpolation, so a value is always what one sees.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ... import files
from ...caddyfile.errors import CaddyfileError
from ..language.values import InvalidValue
from ..language.variables import check_name, check_value

MAX_FILE_BYTES: Final = 1024 * 1024

_QUOTED = re.compile(r"""(["'])(.*?)\1(\s+\#.*)?""")
"""The first closing quote that nothing but a comment follows is it."""
_COMMENT = re.compile(r"\s\#.*")


def locate(path: str, working_dir: Path) -> Path:
    """The file that *path* means for an app in *working_dir*.

    An absolute path is the operator's and trusted. A relative one stays inside the working directory, also after its
    symlinks are followed: the directory may be a tenant's. Raises ``InvalidValue``: the path leaves the working
    directory.
    """
    if os.path.isabs(path):
        return Path(path)
    hint = f"put it under {working_dir}, or write an absolute path"
    if ".." in Path(path).parts:
        raise InvalidValue(f"env_file {path!r} may not contain ..", hint)
    root = Path(os.path.realpath(working_dir))
    resolved = Path(os.path.realpath(root / path))
    if not resolved.is_relative_to(root):
        raise InvalidValue(f"env_file {path!r} leads out of the working directory, to {resolved}", hint)
    return resolved


def read(path: Path, refuse: Callable[[int], str | None] | None = None, within: Path | None = None) -> dict[str, str]:
    """The variables of one file, the later of two equal names winning. ``refuse``: why the file of this descriptor,
    which is not yet opened, must not be read. ``within``: the folder it must be in when it is opened: a link may lead
    elsewhere by then. Raises ``InvalidValue`` for the file, ``CaddyfileError`` for a line of it.
    """

    def why_not(descriptor: int) -> str | None:
        if within is not None and not Path(files.name_of(descriptor) or "/").is_relative_to(os.path.realpath(within)):
            return f"leads out of {within}"
        return None if refuse is None else refuse(descriptor)

    try:
        content = files.read(path, MAX_FILE_BYTES + 1, why_not)
    except files.Unfit as exc:
        raise InvalidValue(f"env_file {path} {exc.strerror}") from None
    except OSError as exc:
        is_closed = isinstance(exc, PermissionError)
        hint = "let the daemon's user read it" if is_closed else "create it, or correct the path"
        raise InvalidValue(f"env_file {path} cannot be read: {exc.strerror}", hint) from None
    if len(content) > MAX_FILE_BYTES:
        raise InvalidValue(f"env_file {path} is larger than 1 MiB")
    return parse(content, str(path))


def parse(content: bytes, file: str) -> dict[str, str]:
    """The variables in *content* of *file*. Raises ``CaddyfileError`` at the first line that cannot be read."""
    variables: dict[str, str] = {}
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.decode().strip()
            if not line or line.startswith("#"):
                continue
            name, value = _assignment(line)
        except UnicodeDecodeError:
            raise CaddyfileError("the line is not UTF-8", file, number) from None
        except InvalidValue as exc:
            raise CaddyfileError(str(exc), file, number, hint=exc.hint) from None
        variables[name] = value
    return variables


def _assignment(line: str) -> tuple[str, str]:
    name, equals, value = line.partition("=")
    if not equals:
        # The text may be a secret that was pasted carelessly, so it is not shown.
        raise InvalidValue("the line has no =", "write KEY=VALUE, or # in front of a comment")
    name = re.sub(r"\Aexport\s+", "", name.strip()).rstrip()
    check_name(name)
    found = _QUOTED.fullmatch(value.strip())
    value = found[2] if found is not None else _COMMENT.sub("", value).strip()
    check_value(value)
    return name, value
