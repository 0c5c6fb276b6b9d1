"""What every child of the daemon has, be it a worker, a fork server or a thread host.

``launcher``     what workers may be forked from together
``child``        a worker or a thread host, and the launcher that forks it
``peer``         it, on its channel
``equipment``    what it gets before it runs: its page, its pipes, its settings
"""
