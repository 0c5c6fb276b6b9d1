"""Listeners and connections, and who owns them.

``addresses``    where a listener listens
``socket_file``  what is done to the file of a unix socket, and to the lock beside it
``listener``     sockets that are ours
``activation``   those that a service manager has passed; ``opener``: finds or opens them
``listeners``    all that are open for apps, and whose X-Forwarded headers are believed
``connections``  the connections we hold a duplicate of
``shares``       who may have how many descriptors
``refusals``     what is told in the place of an app: code, reason, Retry-After
"""
