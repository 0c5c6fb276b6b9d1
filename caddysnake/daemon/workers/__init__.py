"""One worker, and where workers come from.

``worker``     one worker; ``warmup``: what a new one must answer
``process``    its process, which it gives orders to
``sink``       whom it tells what becomes of it
``lifecycle``  its states
``deadline``   by when its state must have ended
``giving``     connections on their way to it
``slots``      which connection is in which slot of its page
``gauges``     what its page says
``hanging``    whether it stands still, and how it is stopped then
``balancer``   which worker gets the next connection
``launchers``  all places that workers come from
``child``      what every child of the daemon has
``forking``    workers that are processes
``threads``    workers that are threads
"""
