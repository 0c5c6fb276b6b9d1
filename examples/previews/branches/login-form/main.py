"""The app as it is on the branch `login-form`, which is not merged yet."""

import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    return {"branch": os.environ["BRANCH"], "greeting": "Hello, who are you?", "login": "/login"}


@app.get("/login")
def login():
    return "<form method=post><input name=user><button>Log in</button></form>"
