"""Other servers' configurations, as Caddyfiles. Nothing of them is run.

``reading``       what was named, a file or a command, to the text of a Caddyfile
``servers``       which server a command starts, and through what
``gunicorn``, ``asgi_servers``, ``uwsgi``  what becomes of their options
``options``       how options are read, and uses that several servers share
``sources``       where commands are found: Procfiles, units, Dockerfiles
``launch``        a command and its surroundings
``block``         a block while it is put together
"""
