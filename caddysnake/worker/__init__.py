"""The guest in the app's interpreter.

``bootstrap``    first code to run: cleans sys.path, loads our folders as ``_caddysnake``, finds the libraries
``fork_server``  preloads, freezes, forks, reaps
``main``         one worker: configure, load, serve, drain, exit status
``execute``     becomes a command that is executed as the app is
``rehearsal``   one that is watched, for what it would miss in a sandbox
``threads``      workers that are threads of one process
``servers``      the server of each interface: prepared, run, or why there is none
``asgi``         the event-loop server
``wsgi``         the threaded server, leader and followers
``websocket``    frames, without I/O
``process``      the process: its setup, limits, stacks
``app``          the app: load it, answer health checks in front of it
``arrival``      since when a request has waited that was there before
``rounds``       after how many requests a connection goes back, for the next worker
``in_flight``      what becomes of requests when as many as may be are being answered
``file_parts``  parts of files on their way to a socket
``coroutines``      where a task stands
``access_log``   records of requests

Guest code: Python 3.10, standard library, httptools, uvloop (and websockets on the first upgrade). No module here may
share a name with the standard library.
"""
