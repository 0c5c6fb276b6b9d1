"""The process of a worker.

``limits``  its limits
``stacks``  its threads' stacks, for the log
``termination``  SIGTERM: it ends now, in order
"""
