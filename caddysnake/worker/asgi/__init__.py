"""The event-loop server.

``server``      the loop, the app's life, and what becomes of requests when the worker leaves
``connection``  one connection, its requests in order
``in_flight``   requests that wait while as many as may be are being answered
``flow``        how fast it is read and written
``logged``      requests for the access log; ``counted``: given back after so many
``deadlines``   requests that take too long, and where they stand
``cycles``      one request and its answer
``context``     what connections and cycles share, in the place of the server
``scope``       what an app is told of a request
``lifespan``    the app's start and end
``loop``        the event loop itself
``turns``       who keeps it long gives way
"""
