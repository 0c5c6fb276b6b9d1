"""What the daemon and its workers, fork servers and relays say to each other, and nothing else.

``messages``  the vocabulary: one NamedTuple a message
``codec``     messages to frames and back; refuses what it does not know
``endpoint``  the only module that calls sendmsg and recvmsg with descriptors
``configuring``  the first message, received
``records``   what a worker says of itself, and of the requests it has answered, into a pipe
``settings``  what a worker must know, in a sealed memfd
``farewell``  how long a worker's end may take
``codes``     the words of ``caddysnake-code``, each with its status and what the docs say of it
``gate``      what an interpreter waits for before it becomes a command
``vitals``    the shared page: counters, bounds of histograms, one state byte per connection slot
``traces``  which trace a request belongs to, and a line that is printed meanwhile
``throttle``  how much is said: a token bucket, and what is told once a minute

Guest code: Python 3.10, standard library only. The two ends may run different Python versions, and the far end may run
a tenant's code, so nothing here is pickled or marshalled.
"""
