"""An app to begin with: it says where it runs."""

import os
import time


def app(environ, start_response):
    time.sleep(float(environ.get("HTTP_X_SLEEP", "0")))
    print("asked for", environ["PATH_INFO"], flush=True)
    body = f"Hello from process {os.getpid()} of user {os.getuid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
