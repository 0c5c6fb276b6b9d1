"""One worker, and where workers come from.

``worker``     one worker
``lifecycle``  its states
``hanging``    when it stands still; ``standstill``: when nothing runs
``balancer``   which worker gets the next connection
``child``      what every child of the daemon has
``forking``    workers that are processes
``threads``    workers that are threads
"""
