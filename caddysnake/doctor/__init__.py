"""What is wrong with a machine, or with how it was set up: looks, changes nothing, and names what mends it.

``findings``   what is found: how bad, in one sentence, and the command that mends it
``reach``      whether a user can get to a path, from owners and modes
``front``      who Caddy runs as; ``service``: who runs the daemon
``running``    whether that runs, and its apps do
``sockets``    listeners: folders, owners, modes, who holds them, what is left of them
``machine``    limits of the system and of whoever asks
``software``   versions: Python, Caddy, what workers of other Pythons need
"""
