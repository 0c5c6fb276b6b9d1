"""WebSocket (RFC 6455), without I/O.

``frames``     frames
``deflate``    the extension permessage-deflate (RFC 7692)
``mask``       masking
``handshake``  the opening handshake
``keepalive``  when a quiet client is pinged, and given up
"""
