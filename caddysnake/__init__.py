"""caddysnake: a sidecar that runs Python web apps behind a stock Caddy.

==================  ============================================================
``cli``             one file a command
``admin``           the admin API
``doctor``          what is wrong with a machine
``daemon``          sockets, hand-over, supervision
``relay``           forwards request by request; the waiting room
``worker``          the guest in the app's interpreter
``aio``             what the two event-loop servers, worker and relay, share
``config``          meaning: blocks to frozen models to the plan
``placeholders``    ``{http.request.host}`` and friends; ``matchers``: who gets a request
``logs``            records, their form, and the process that writes the log
``caddyfile``       the language: text to tokens to blocks
``http1``           HTTP/1.1 rules over httptools
``channel``         what the daemon, workers, fork servers and relays say to each other
``public``          what apps may import of ours
``files``           files in places where somebody else may write
``sandbox``         walls around an app that the kernel holds
``keyring``         a session keyring for each app
``installation``    where caddysnake is installed; ``libraries``: where a guest finds ours
==================  ============================================================

This module imports nothing, so that every process may import it at no cost.
"""

__version__ = "0.2.0"
