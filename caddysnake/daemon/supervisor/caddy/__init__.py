"""A stock Caddy that we supervise.

``binary``     found, and asked what it knows and whether it would run a file
``complaint``  what it has against a file
``admin_socket``  where it is told of another configuration
``process``    started, watched, ended
"""
