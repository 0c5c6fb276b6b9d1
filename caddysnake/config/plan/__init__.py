"""What is to run: models to listeners and apps, everything resolved.

``plan``         models to listeners and apps
``routing``      from the plan to each socket's table of sites and routes, for the relay
``environment``  the whole environment of a worker; ``envfile``: the ``env_file`` format
``admin``        where the admin API listens, and who may call it
``accounts``     users and groups
``isolation``    what keeps two apps apart; ``fence``: what an app in a sandbox may reach
``rendezvous``   where commands find a daemon of which nobody has said where its API is
``places``       where relative paths begin, and which folder a user has for sockets
``search``       finds modules and interpreters on disk, and who could change them
"""
