"""What a command finds around it: the same as the app's workers, and the app's ``python`` in front."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...channel.settings import Settings
from ...config.plan.accounts import Account
from ...config.plan.search import located
from ..workers.child.launcher import ForkServerKey

PYTHON_WORDS = ("python", "python3")
"""As the first word of a command they are the app's interpreter, whatever is in its folder."""


class Surroundings(NamedTuple):
    """Of the commands of one app, resolved once: a release that is switched later is another build's."""

    app: str
    account: Account | None
    """None: the daemon's own user."""
    python: str
    working_dir: str
    environ: Mapping[str, str]
    limits: Mapping[str, int]

    @classmethod
    def of(cls, settings: Settings, key: ForkServerKey, temporary: str) -> Surroundings:
        """Return those of the app that ``settings`` and ``key`` are of. ``temporary``: for its ``TMPDIR``.

        For a thread: it follows links, and blocks for as long as the file system does.
        """
        python = located(key.python)
        environ = {"TMPDIR": temporary, **settings.environ}
        rest = environ.get("PATH") or os.defpath
        environ["PATH"] = os.pathsep.join((os.path.dirname(python), rest))
        folder = os.path.realpath(settings.working_dir)
        return cls(settings.app, key.account, python, folder, environ, settings.limits or {})

    def words(self, command: Sequence[str]) -> list[str]:
        """Return ``command`` with the app's interpreter for ``python``."""
        first, *others = command
        return [self.python if first in PYTHON_WORDS else first, *others]
