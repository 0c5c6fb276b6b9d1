"""Workers that are processes.

``fork_server``    where they are forked; ``fork_servers``: all of them
``ahead``          one that starts before the daemon is imported
``interpreter``    what runs there, with what, and as whom
``start_limiter``  how many start at a time
"""
