"""Have the running daemon become the version of caddysnake that is installed now, and wait until it has.

Run it after an upgrade of the package, or of the daemon's Python. The new version is rehearsed first: if it cannot come
up, or cannot take over, nothing changes, this says why, and exits with 1. Then it takes over in the same process: its
pid, sockets, workers, connections and WebSockets stay, and no request fails.

Workers go on with the code they have. `caddysnake reload` gives every app workers of the new version.

    pip install --upgrade caddysnake-sidecar && caddysnake upgrade && caddysnake reload
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from .calling import CallFailed, Target, call
from .finding import add_daemon_arguments, find

_PATIENCE_S = 180.0
_LOOK_S = 0.1


add_arguments = add_daemon_arguments


def main(args: argparse.Namespace) -> int:
    """Upgrade, and wait for the outcome; 0 when the new version runs."""
    begun = time.monotonic()
    target = find(args.address, args.config)
    before = call(target, "GET", "/upgrade")["upgrades"]
    expected = call(target, "POST", "/upgrade", timeout=None)["version"]
    done = _outcome(target, before)
    if not done:
        raise CallFailed(f"version {expected} has not taken over within {_PATIENCE_S:g} s; see the daemon's log")
    if done["refused"]:
        raise CallFailed(done["refused"])
    took = time.monotonic() - begun
    print(f"Version {done['version']} runs, after {took:.1f} s. Its pid is {done['pid']} as before.",
          file=sys.stderr)  # fmt: skip
    return 0


def _outcome(target: Target, before: int) -> dict[str, Any]:
    """What the daemon says of itself when it has become another, or has not; nothing after too long."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        time.sleep(_LOOK_S)
        try:
            said = call(target, "GET", "/upgrade")
        except CallFailed:
            continue  # asked in the moment of the exchange
        if said["upgrades"] > before or not said["is_under_way"]:
            return said
    return {}
