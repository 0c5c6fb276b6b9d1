"""Forwards request by request, where one connection may carry requests for several apps; and the waiting room of apps
that are not up. A process of our own: no code of an app is ever loaded here.

``main``               the process: configure, serve, drain
``server``             the shell: loop, channel, life, links asked for, vital signs
``client_transport``   one connection from Caddy: how it begins, pauses and ends; ``client_connection``: its requests
``link_connection``    the relay's end of one link
``exchange``           one request and its response, as events and commands
``to_worker``          the request's head and framing on the link
``from_worker``        the response, read strictly, passed on as it came
``link_pool``          which links are free, and who waits for one
``answers``            answers of the relay's own

``exchange``, ``to_worker``, ``from_worker``, ``link_pool`` and ``answers`` do no I/O.
"""
