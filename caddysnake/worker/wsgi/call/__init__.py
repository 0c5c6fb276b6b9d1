"""One call of the app.

``call``          runs it
``input``         ``wsgi.input``
``file_wrapper``  ``wsgi.file_wrapper``
``deadlines``     calls that take too long
``logged``        calls for the access log
``factory``       which of these a call is
"""
