"""A shop: who orders is answered at once, and the order is carried out by Celery."""

import os
import sqlite3

from celery import Celery
from flask import Flask, jsonify

DATABASE = os.environ.get("DATABASE", "shop.sqlite3")

queue = Celery("shop", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
queue.conf.update(
    worker_concurrency=1,
    beat_schedule={"count": {"task": "shop.count", "schedule": 1.0}},
    beat_schedule_filename="/dev/null" if os.environ.get("FORGETFUL") else "beat",
)
app = Flask(__name__)


def database():
    return sqlite3.connect(DATABASE, timeout=10)


@queue.task(name="shop.carry_out")
def carry_out(order, seconds):
    import time

    time.sleep(seconds)
    with database() as found:
        found.execute("UPDATE orders SET state = ? WHERE id = ?", (f"done by {os.getppid()}", order))


@queue.task(name="shop.count")
def count():
    with database() as found:
        found.execute("UPDATE beats SET number = number + 1")


@app.post("/orders/<float:seconds>")
def take(seconds):
    with database() as found:
        order = found.execute("INSERT INTO orders (state) VALUES ('taken')").lastrowid
    carry_out.delay(order, seconds)
    return jsonify(order=order)


@app.get("/orders/<int:order>")
def look(order):
    with database() as found:
        (state,) = found.execute("SELECT state FROM orders WHERE id = ?", (order,)).fetchone()
    return jsonify(order=order, state=state)


@app.get("/")
def hello():
    with database() as found:
        (beats,) = found.execute("SELECT number FROM beats").fetchone()
    return jsonify(beats=beats)
