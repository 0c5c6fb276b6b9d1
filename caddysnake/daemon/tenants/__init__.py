"""Dynamic apps: which of them live, start or wait.

``tenants``      the dynamic apps of one template
``policy``       which of them live, without I/O
``tenant``       one record for each
``starting``     their starts
``renewing``     new workers for those that live
``schedules``    commands at certain times, while they sleep too
``known_apps``   which there are, for their schedules
``known_hosts``  whether a host is served here, for Caddy's on-demand TLS
``lookup``       apps by name
"""
