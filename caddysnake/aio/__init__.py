"""What the two event-loop servers share: the ASGI worker's and the relay's.

``agent``       the server's end of the channel: it takes connections, gives them back, and leaves
``connection``  the requests of a connection, in order
``transport``   how a connection begins, pauses, waits and ends
``context``     what connections share, in the place of the server
``early_answers``  answers to requests that are not read: what these servers and the WSGI server hold to
``counters``    what a server counts, on the shared page

Guest code: Python 3.10. Imports only ``channel`` and ``http1``.
"""
