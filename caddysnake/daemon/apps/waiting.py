"""Those who wait to be told that an app has a worker, or that it will have none."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from ..sockets.refusals import Refusal
from ..system import mishaps

Tell = Callable[[Refusal | None], None]


class Waiters:
    """By their token. Each is told once: None when there is a worker, or why there will be none."""

    def __init__(self) -> None:
        self._tells: dict[Hashable, Tell] = {}

    def __len__(self) -> int:
        return len(self._tells)

    def add(self, token: Hashable, tell: Tell) -> None:
        """``tell`` waits."""
        self._tells[token] = tell

    def never_mind(self, token: Hashable) -> None:
        """Whoever asked has left."""
        self._tells.pop(token, None)

    def tell(self, refusal: Refusal | None) -> None:
        """Tell all of them, who wait no more."""
        tells, self._tells = self._tells, {}
        for each in tells.values():
            mishaps.or_else(lambda _: None)(each)(refusal)
