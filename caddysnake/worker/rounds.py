"""After how many requests a connection goes back to the daemon, where it is to come round to all workers."""

from __future__ import annotations

from ..channel.messages import TAKE_COUNTED, TAKE_LAST, TAKE_ROUND, TAKE_SINCE_SHIFT

_FEW = 8
_MANY = 1000
"""Of requests, when there are so many connections that going round would cost something."""
_ROUNDS_A_SECOND = 10.0


class Rounds:
    """Those of one worker."""

    _room = _ROUNDS_A_SECOND
    _at = 0.0

    def turns(self, flags: int, now: float) -> int:
        """Return it for one taken ``now`` with ``flags``; 0: it stays."""
        if flags & TAKE_COUNTED:
            return flags >> TAKE_SINCE_SHIFT
        if not flags & TAKE_ROUND or flags & TAKE_LAST:
            return 0
        self._room = min(_ROUNDS_A_SECOND, self._room + (now - self._at) * _ROUNDS_A_SECOND)
        self._at = now
        if self._room < 1:
            return _MANY
        self._room -= 1
        return _FEW
