"""Which refused values are worth a line in the log: each once a minute. Pure."""

from __future__ import annotations

from typing import Final

_INTERVAL_S: Final = 60.0
_VALUES_MAX: Final = 1024


class Refusals:
    """Remembers what was said, a bounded number of them: a stranger can think of any number of values."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], float] = {}
        self._full_until = 0.0

    def is_news(self, name: str, value: str, now: float) -> bool:
        """Whether the *value* of the placeholder *name* should be said, *now* being the time on the monotonic clock."""
        key = (name, value[:256])
        said = self._said.get(key)
        if said is not None and now - said < _INTERVAL_S:
            return False
        if len(self._said) >= _VALUES_MAX:
            if now < self._full_until:
                return False
            self._said = {key: at for key, at in self._said.items() if now - at < _INTERVAL_S}
            self._full_until = now + 1.0  # not again for every request of a flood
            if len(self._said) >= _VALUES_MAX:
                return False
        self._said[key] = now
        return True
