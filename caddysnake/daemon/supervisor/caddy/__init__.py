"""A stock Caddy that we supervise.

``binary``     found, and asked what it knows and whether it would run a file
``complaint``  what it has against a file
``output``     what it writes to its standard error
``door``       where it is told of another configuration
``process``    started, watched, ended
"""
