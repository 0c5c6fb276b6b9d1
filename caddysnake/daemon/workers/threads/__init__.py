"""Workers that are threads.

``host``       a process in which they are threads; ``hosts``: all of them
``placement``  where the workers of one pool are
"""
