"""Makes what runs equal to what is wanted.

``supervisor``  brings it up, changes it as a whole, ends it
``running``     what runs; ``store_requests``: where apps ask for a store
``beginnings``: what of it has not come up yet
``change``      a change, by those who take part in it: ``app_changes``, ``relays_change``; ``reloads``: asks for one
``oneoff``      one-off commands
``shutdown``    the order of the end
``resolving``   from what a block says to what runs
``budget``      how much memory all workers may have, and who gives way first
``desired``     from the plan to what is to run, and what of it is there already
``document``    a Caddyfile as the daemon is given it
``fallback``    who answers on a listener that is given up
``beside``      the seams for what runs beside the apps: the admin API, a Caddy
``caddy``       the Caddy that is supervised
"""
