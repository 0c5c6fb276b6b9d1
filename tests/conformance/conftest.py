"""``.ci/autobahn`` says whether there is a fuzzing client on this machine, and ``.ci/run websocket`` runs what is here.

Without one, ``tests/worker/websocket`` and ``tests/worker/asgi/test_websocket.py`` still hold the frames of every rule.
"""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("CADDYSNAKE_WSTEST") else ["test_autobahn.py"]
