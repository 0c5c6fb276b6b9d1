"""A tenant: a folder with an app."""


def app(environ, start_response):
    body = b"This is blue\n"
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
