"""The process of a worker.

``setup``        environment, streams, title, directories, death with the daemon
``limits``       its limits
``stacks``       its threads' stacks, for the log
``termination``  SIGTERM: it ends now, in order
"""
