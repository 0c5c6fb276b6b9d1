"""Commands that are executed as an app is: what of it is no worker.

``background``    what runs beside an app's workers, build by build
``schedule``      a command at certain times; ``timetable``: which are due, begun late or missed, without I/O
``store``         one that all workers share; ``fullness``: whether it refuses writes because it is full
``process``       one that is kept up
``session``       one that somebody waits for
``release``       what must succeed before a build's first worker
``execution``     one command, from its start to its end
``leftovers``     what one leaves behind
``surroundings``  what they find around them
``spec``          which there are
"""
