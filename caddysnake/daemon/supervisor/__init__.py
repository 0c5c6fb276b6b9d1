"""Makes what runs equal to what is wanted.

``supervisor``  what runs, changed as a whole
``desired``     from the plan to what is to run, and what of it is there already
``document``    a Caddyfile as the daemon is given it
``fallback``    who answers on a listener that is given up
``beside``      the seams for what runs beside the apps: the admin API, a Caddy
``caddy``       the Caddy that is supervised
"""
