"""What is wrong with a machine, or with how it was set up: looks, changes nothing, and names what fixes it.

``findings``   what is found: how bad, in one sentence, and the command that fixes it
``reach``      users, and whether one can get to a path, from owners and modes
``front``      Caddy: who it runs as, where it forwards to; ``service``: who runs the daemon
``running``    whether the daemon, its apps and Caddy run
``sockets``    listeners: folders, owners, modes, who holds them, what is left of them
``machine``    limits of the system and of whoever asks
``software``   versions: Python, Caddy, what workers of other Pythons need
"""
