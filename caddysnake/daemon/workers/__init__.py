"""One worker, and where workers come from.

``worker``     one worker
``lifecycle``  its states
``hanging``    whether it stands still, and how it is stopped then
``balancer``   which worker gets the next connection
``launchers``  all places that workers come from
``child``      what every child of the daemon has
``forking``    workers that are processes
``threads``    workers that are threads
"""
