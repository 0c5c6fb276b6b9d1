"""One call of the app.

``call``          runs it
``input``         ``wsgi.input``
``file_wrapper``  ``wsgi.file_wrapper``
``deadlines``     calls that take too long
``logged``        calls for the access log
``upgrade``       calls that take their connection for a WebSocket
``factory``       which of these a call is
"""
