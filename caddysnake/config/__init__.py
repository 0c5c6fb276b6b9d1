"""Meaning: a parsed Caddyfile to frozen models, the models to a plan, the plan against the disk.

``language``  what a file says
``plan``      what is to run
``check``     what the file system says of it
``stock``     the same file for a stock Caddy

Nothing here opens a socket or starts a process.
"""
