"""What every child of the daemon has, be it a worker, a fork server or a thread host.

``launcher``     where workers come from: what a pool asks of fork servers and thread hosts alike
``child``        what a launcher forks: a worker, or a thread host
``peer``         it, on its channel
``equipment``    what it gets before it runs: its page, its pipes, its settings
"""
