"""What a command finds around it: the same as the app's workers, and the app's ``python`` in front."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ...channel.settings import Settings
from ...config.plan.accounts import Account
from ...config.plan.fence import Fence, FenceError, Sites, walls_of
from ...config.plan.search import located
from ...installation import PACKAGE
from ...sandbox.walls import Walls
from ..workers.child.launcher import ForkServerKey

PYTHON_WORDS = ("python", "python3")
"""As the first word of a command they are the app's interpreter, whatever is in its folder."""

PUBLIC = str(PACKAGE / "public")
"""Where ``from caddysnake import cache`` finds ours."""
STORE = "\0store"
"""A word of a command that becomes the path of the store's socket. No word of a user's can be it."""
STORE_URL, STORE_CELERY_URL = "CADDYSNAKE_STORE_URL", "CADDYSNAKE_STORE_CELERY_URL"


def store_environ(settings: Settings, private: str) -> dict[str, str]:
    """The variables that say where the store is whose socket is in the private folder ``private``, if there is one."""
    if settings.store is None:
        return {}
    path = store_socket(private)
    names = {STORE_URL: f"unix://{path}", STORE_CELERY_URL: f"redis+socket://{path}"}
    return names | dict.fromkeys(settings.store, names[STORE_URL])


def store_socket(private: str) -> str:
    """The socket of the store of the app whose private folder that is."""
    return f"{private}/store.sock"


class Surroundings(NamedTuple):
    """Of the commands of one app, resolved once: a release that is switched later is another build's."""

    app: str
    account: Account | None
    """None: the daemon's own user."""
    python: str
    working_dir: str
    environ: Mapping[str, str]
    limits: Mapping[str, int]
    walls: Walls | None = None
    """Those of the app's sandbox."""
    cannot: str = ""
    """Why nothing must be executed there."""
    private: str = ""
    """Its private folder."""

    @classmethod
    def of(cls, settings: Settings, key: ForkServerKey, temporary: str, fence: Fence | None = None) -> Surroundings:
        """Return those of the app that ``settings``, ``key`` and ``fence`` are of. ``temporary``: for its ``TMPDIR``,
        in its private folder.

        For a thread: it follows links, and blocks for as long as the file system does.
        """
        python = located(key.python)
        private = os.path.dirname(temporary)
        environ = {"TMPDIR": temporary, **settings.environ, **store_environ(settings, private)}
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, (PUBLIC, environ.get("PYTHONPATH"))))
        rest = environ.get("PATH") or os.defpath
        environ["PATH"] = os.pathsep.join((os.path.dirname(python), rest))
        folder = os.path.realpath(settings.working_dir)
        found = cls(settings.app, key.account, python, folder, environ, settings.limits or {}, private=private)
        return found if key.fence is None else found._walled(fence or key.fence, key.python)

    def _walled(self, fence: Fence, python: str) -> Surroundings:
        if not fence.owner:
            return self._replace(cannot="which sandbox is its own is not known")
        try:
            return self._replace(walls=walls_of(fence, Sites(python, (), self.private)))
        except FenceError as exc:
            return self._replace(cannot=f"{exc} ({exc.hint})")

    def words(self, command: Sequence[str]) -> list[str]:
        """Return ``command`` with the app's interpreter for ``python``."""
        first, *others = command
        store = store_socket(self.private)
        return [self.python if first in PYTHON_WORDS else first, *(store if each == STORE else each for each in others)]


class BuildSurroundings:
    """Those of one build: looked up in a thread when they are first needed, and the same from then on."""

    def __init__(self, look: Callable[[], Surroundings]) -> None:
        """``look`` may raise ``OSError``."""
        self.known: Surroundings | None = None
        self._look = look
        self._looking = asyncio.Lock()

    async def get(self) -> Surroundings:
        """Return them. Raises ``OSError``."""
        async with self._looking:
            if self.known is None:
                self.known = await asyncio.to_thread(self._look)
            return self.known
