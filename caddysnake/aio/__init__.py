"""What the two event-loop servers share: the ASGI worker's and the relay's.

``counters``  what a server counts, on the shared page

Guest code: Python 3.10, standard library only.
"""
