"""Meaning: a parsed Caddyfile to frozen models, and the models to a plan.

``values``      durations, sizes, counts, ``module:variable``, socket addresses
``envfile``     the ``env_file`` format, and which names may be set
``models``      what a Caddyfile says, as frozen pydantic models
``directives``  one registered function a subdirective of ``python``, with its syntax line
``options``     the same for global options
``adapt``       ``load``: file to models, all errors at once; models to JSON
``plan``        ``plan``: models to listeners and apps, everything resolved
``pending``     what is understood but not built yet
``check``       what the file system can refute before anything starts
``stock``       the same file for a stock Caddy

Nothing here opens a socket or starts a process.
"""
