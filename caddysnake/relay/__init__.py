"""Forwards request by request, where one connection may carry requests for several apps; and the waiting room of apps
that are not up. A process of our own: no code of an app is ever loaded here.

``main``               the process: configure, serve, drain
``server``             what comes over the channel, and what becomes of it when the relay leaves
``client_connection``  the requests of one connection from Caddy
``client_flow``        how fast it is read and written
``link_broker``        who gets which link, and what is asked of the daemon
``link_connection``    the relay's end of one link
``context``            what connections and links share: limits, counters, what is held for those who do not read
``turns``              whose work is done now, and whose later
``answers``            answers of the relay's own
``affinity``           which worker a client's requests go to
``exchange``           one request and its response, as events and commands
``to_worker``          the request's head and framing on the link
``from_worker``        the response, read strictly, passed on as it came
``link_pool``          which links are free, and who waits for one

From ``turns`` on nothing does any I/O.
"""
