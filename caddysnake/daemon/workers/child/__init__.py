"""What every child of the daemon has, be it a worker, a fork server or a thread host.

``launcher``   where workers come from: what a pool asks of fork servers and thread hosts alike
``equipment``  what a child gets before it runs: its page, its pipes, its settings
"""
