"""The event-loop server.

``server``      the shell: loop, channel, life
``connection``  one connection, its requests in order
``scope``       what an app is told of a request
``lifespan``    the app's start and end
``loop``        the event loop itself
``turns``       who keeps it long gives way
``deadlines``   requests that take too long; ``asgi_stacks``: where they stand
``logged``      requests for the access log
``cycles``      one request and its answer
"""
