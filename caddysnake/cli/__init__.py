"""The command line: one module a command, imported when it is called.

``entry``    where the program begins
``main``     finds the command; each command's module has ``add_arguments(parser)``, ``main(args) -> int`` and a
             docstring that is its help
``terminal`` what a terminal may be shown
``reading``  the Caddyfile a command works on, and how errors in it are shown
``finding``  where the running daemon is; ``calling``: what is asked of it
"""
