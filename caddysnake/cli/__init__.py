"""The command line: one module a command, imported when it is called.

``entry``          where the program begins
``main``           finds the command; each command's module has ``add_arguments(parser)``, ``main(args) -> int`` and a
                   docstring that is its help
``terminal``       what a terminal may be shown

``run``            runs the apps of a file; ``serve``: one app without a file
``announcing``     what is said once apps serve
``understanding``  from a file to what the daemon runs; ``runtime_dir``: the folder of sockets that nobody named;
                   ``named_app``: the app that a command line names
``reading``        the Caddyfile a command works on, and how errors in it are shown
``validate``       checks a file; ``planning``: what it comes to here; ``trying``: its apps, imported
``adapt``          a file as JSON; ``caddyfile``: for a stock Caddy; ``fmt``: formatted
``import``         a Caddyfile for what another server runs; ``importing``: how that is read

``finding``        where the running daemon is; ``calling``: what is asked of it
``status``         how it is, ``status_watch``: that once or again and again, ``status_table``, ``beside``: as text
``logs``           what was logged last; ``profile``: where an app spends its time
``dump``           have a worker write its stacks
``reload``         carry out the file as it is now; ``upgrade``: become another version; ``stop``: end
``scale``      another number of workers; ``promote``, ``rollback``: which build serves
``exec``       run a command as an app is; ``run_schedule``: a schedule now

``doctor``         what is wrong with a machine; ``environ``: what is found around; ``version``
``runtime``        libraries for another Python; ``wheels``: where they come from
``systemd``        installs units; ``units``: their text
``completion``     scripts for shells; ``manpage``: the manual page; both out of ``generated``
"""
