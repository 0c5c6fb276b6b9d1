"""Workers that are processes.

``fork_server``    where they are forked; ``environment``: with what
``start_limiter``  how many start at a time
"""
