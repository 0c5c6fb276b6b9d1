"""caddysnake: a sidecar that runs Python web apps behind a stock Caddy.

==================  ============================================================
``caddyfile``       the language: text to tokens to blocks
``placeholders``    ``{http.request.host}`` and friends; ``matchers``: who gets a request
``config``          meaning: blocks to frozen models to the plan
``files``           files in places where somebody else may write
``keyring``         a session keyring for each app
``channel``         what the daemon, workers and spawners say to each other
``http1``           HTTP/1.1 rules over httptools
``worker``          the guest in the app's interpreter
``relay``           forwards request by request; the waiting room
``daemon``          sockets, hand-off, supervision
``cli``             one file a command
==================  ============================================================

This module imports nothing, so that every process may import it at no cost.
"""

__version__ = "0.1.0"
