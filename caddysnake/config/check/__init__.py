"""What the file system says of a plan, before anything starts and again for each tenant.

``check``      what the file system can refute; ``commands``: of what runs beside the workers
``tenancy``    from a template of apps and a request's values to one app
``sandbox``    what this kernel holds of sandboxes, and what their paths are
``settled``    the last step: routes, what no request decides, what the file system says
``on_demand``  whether a host is served here
"""
