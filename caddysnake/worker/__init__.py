"""The guest in the app's interpreter.

``bootstrap``  first code to run: cleans sys.path, loads our folders as ``_caddysnake``, finds the libraries
``spawner``    fork server: preloads, freezes, forks, reaps
``main``       one worker: configure, load, serve, drain, exit status
``loader``     imports ``module:variable``; ``AppError`` with what was searched
``health``     answers health checks in front of the app
``asgi``       the event-loop server; ``lifespan``, ``scope`` beside it
``wsgi``       the threaded server, leader and followers

Guest code: Python 3.10, standard library, httptools, uvloop (and websockets on the first upgrade). Imports only
``channel`` and ``http1``. No module here may share a name with the standard library.
"""
