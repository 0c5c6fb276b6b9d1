"""What a Caddyfile says: from blocks to frozen models, with every error at once.

``values``      durations, sizes, counts, ``module:variable``, socket addresses
``variables``   which names and values the variables of an environment may have
``models``      what a Caddyfile says, as frozen pydantic models
``registry``    a table of named settings: syntax line, function, reference text; and what other servers call them
``directives``  one registered function a subdirective of ``python``; ``deploying``: those of a build that takes over;
                ``commands``: of what runs beside the workers; ``block`` reads a whole one
``cron``        times of schedules, and time zones
``options``     the same for global options
``listeners``   which sockets there are, direct or relayed, and why
``adapt``       ``load``: file to models; models to JSON
"""
