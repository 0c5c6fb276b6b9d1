"""What runs in the daemon's own process: it supervises workers, owns the listeners, and never runs an app's code.

``main``        signals, the order of starting and stopping, reloads
``upgrade``     becomes another version of itself
``supervisor``  makes what runs equal to what is wanted
``relays``      relay processes, and the links they ask for
``tenants``     dynamic apps: which live, start, wait
``apps``        an app: its generations of workers, its queue
``commands``    what is executed as an app is
``workers``     one worker, and where workers come from
``sockets``     listeners, connections, who owns them
``system``      this process, its children, the machine, the log
"""
