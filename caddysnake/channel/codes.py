"""The stable words of the field ``caddysnake-code``, which clients and operators rely on, and the status of each.

One table for the daemon, relays and workers. What breaks a rule of HTTP has words of its own, in ``http1``.
"""

from __future__ import annotations

from typing import Final

STATUS: Final[dict[str, int]] = {
    "healthy": 200,  # a health check of apps that are started when they are asked for
    "no-route": 404,  # no app is for this request
    "no-such-app": 404,  # the app that it leads to is not on disk
    "key-too-long": 404,  # what names the app is longer than any name can be
    "head-timeout": 408,
    "body-timeout": 408,
    "timeout": 408,  # what a client sends to, or takes from, a WSGI app
    "in-flight-full": 429,  # as many requests as may be answered, and wait, for an app do
    "routing-limit": 431,  # looking for the app would take more work than a request may cause
    "routing": 500,  # looking for the app failed
    "import-failed": 500,  # 503 as long as an app has not come up since the daemon started
    "lifespan-failed": 500,  # the same
    "app-error": 500,  # the app raised while it answered
    "no-response": 500,  # it ended without an answer
    "worker-gone": 502,  # the worker ended before it answered
    "bad-response": 502,  # what the worker sent is no response
    "start-timeout": 503,
    "crashed": 503,  # it crashes again and again
    "setup-failed": 503,  # folder, virtual environment, user or env file
    "capacity": 503,  # as many apps as may run are busy
    "queue-full": 503,  # as many requests as may wait do
    "websockets-full": 503,  # as many WebSockets as a worker may have are open
    "resources": 503,  # no process, memory or descriptor was left
    "no-link": 503,  # the same, between relay and worker
    "stopping": 503,  # the app, or the daemon, is being stopped
    "deadline": 504,  # the app took longer than its request_timeout
}
