"""Makes what runs equal to what is wanted.

``supervisor``  what runs, changed as a whole
``desired``     from the plan to what is to run; ``succession``: what of it is there already
``document``    a Caddyfile as the daemon is given it
``fallback``    who answers on a listener that is given up
``beside``      the seam for the admin API; ``companion``: for what runs beside the apps, such as ``caddy``
``caddy_door``  where that is told of another configuration
"""
