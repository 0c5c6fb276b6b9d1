"""The app as it is on the branch `main`."""

import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    return {"branch": os.environ["BRANCH"], "greeting": "Hello"}
