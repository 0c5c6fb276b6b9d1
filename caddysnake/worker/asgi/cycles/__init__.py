"""One request and its answer.

``cycle``            what both kinds have in common
``http_cycle``       HTTP
``websocket_cycle``  WebSocket
``sendfile``         answers that are files
"""
