"""The process of a worker.

``setup``        environment, streams, title, directories, death with the daemon
``limits``       its limits
``stacks``       its threads' stacks, for the log
``looking``      a signal of the daemon's: look at the channel now, or tell where the start stands
``profiling``    what its threads and tasks are at
``tracing``      whose trace a line belongs to that is printed
``termination``  SIGTERM: it ends now, in order
``customize``    what an interpreter does by itself when it starts with the app's environment, and finds of ours
``lingering``    threads of the app that hold up its end
"""
