"""Forwards request by request, where one connection may carry requests for several apps; and the waiting room of apps
that are not up. A process of our own: no code of an app is ever loaded here.

``main``               the process: configure, serve, drain
``server``             the shell: loop, channel, life, links asked for, vital signs
``client_transport``   one connection from Caddy: how it begins, pauses and ends; ``client_connection``: its requests
``link_connection``    the relay's end of one link
``forwarding``         one request and its response, as events and commands
``to_worker``          the request's head and framing on the link
``from_worker``        the response, read strictly, passed on as it came
``links``              which links are free, and who waits for one
``answers``            answers of the relay's own
``refusals``           what is told of requests with unusable values
``tally``              what it counts

``forwarding``, ``to_worker``, ``from_worker``, ``links`` and ``answers`` do no I/O.
"""
