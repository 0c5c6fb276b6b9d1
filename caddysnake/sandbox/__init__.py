"""Walls around an app that the kernel holds: Landlock for files and TCP ports, seccomp for system calls.

``walls``     what one process, and all that it starts, may reach; put on, and never taken off
``landlock``  rules of the kernel for files, ports and signals
``seccomp``   a program for the kernel that refuses system calls
``syscalls``  which calls those are, as data
``watching``  what a process asks for, told to another
``lines``     which lines of a block would let it
``denials``   what an error says of a path that a wall has kept from somebody

Guest code: Python 3.10, standard library only.
"""
