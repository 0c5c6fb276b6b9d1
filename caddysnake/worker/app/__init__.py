"""The app itself.

``interface``       the app as the settings name it, ``asgi`` or ``wsgi``
``loader``          imports ``module:variable``; ``AppError`` with what was searched
``misfits``         apps that do not go together with how they are run here
``health``          answers health checks in front of the app
``slow``            tells of requests that take long
``advice``          what may help an app that cannot be imported
``build``           tells a traceback's page which build answers
"""
