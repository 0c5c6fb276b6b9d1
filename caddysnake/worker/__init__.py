"""The guest in the app's interpreter.

``bootstrap``    first code to run: cleans sys.path, loads our folders as ``_caddysnake``, finds the libraries
``fork_server``  preloads, freezes, forks, reaps
``main``         one worker: configure, load, serve, drain, exit status
``access_log``   records of requests
``early_answers`` answers to requests that are not read: what both servers hold to
``app``          the app: load it, answer health checks in front of it
``asgi``         the event-loop server
``wsgi``         the threaded server, leader and followers
``websocket``    frames, without I/O
``threads``      workers that are threads of one process
``process``      limits and stacks of a process

Guest code: Python 3.10, standard library, httptools, uvloop (and websockets on the first upgrade). Imports only
``aio``, ``channel`` and ``http1``. No module here may share a name with the standard library.
"""
