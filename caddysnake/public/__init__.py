"""What an app may import of ours, under the name of the package and in its place.

``caddysnake``  ``from caddysnake import cache, worker_id``: the Go plugin's API over the app's store, and how large
                a key or a value may be

Workers get it by a finder (``worker.process.customize``), commands by ``PYTHONPATH``, on which this folder is. Guest:
Python 3.10, standard library only, and one file that stands alone.
"""
