"""Meaning: a parsed Caddyfile to frozen models, and the models to a plan.

``values``       durations, sizes, counts, ``module:variable``, socket addresses
``envfile``      the ``env_file`` format, and which names may be set
``models``       what a Caddyfile says, as frozen pydantic models
``registry``     a table of named settings: syntax line, function, reference text
``directives``   one registered function a subdirective of ``python``; ``block`` reads a whole one
``options``      the same for global options
``adapt``        ``load``: file to models, all errors at once; models to JSON
``listeners``    which sockets there are, direct or relayed, and why
``plan``         ``plan``: models to listeners and apps, everything resolved
``places``       where relative paths begin, and which folder a user has for sockets
``environment``  the whole environment of a worker
``routing``      from the plan to each socket's table of sites and routes, for the relay
``tenancy``      from a template of apps and a request's values to one app
``settled``      the last step: routes, what no request decides, what the file system says
``check``        what the file system can refute before anything starts; ``search`` finds modules on disk
``stock``        the same file for a stock Caddy, with ``sourcetext``, ``printing`` and ``expansion``

Nothing here opens a socket or starts a process.
"""
