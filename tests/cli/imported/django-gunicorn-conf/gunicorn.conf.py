"""Settings of the shop in production."""
import multiprocessing
import os

bind = "unix:/run/shop/gunicorn.sock"
umask = 0o007
workers = multiprocessing.cpu_count() * 2 + 1
threads = 4
worker_class = "gthread"
worker_tmp_dir = "/dev/shm"
wsgi_app = "shop.wsgi:application"
chdir = "/srv/shop"
raw_env = ["DJANGO_SETTINGS_MODULE=shop.settings.production", 'FEATURES={"new": true}']
timeout = 120
graceful_timeout = 30
keepalive = 5
max_requests: int = 1000
max_requests_jitter = 100
accesslog = "-"
errorlog = "-"
loglevel = os.environ.get("LOG_LEVEL", "info")
preload_app = True
proc_name = "shop"
favourite_colour = "blue"

if os.environ.get("DEBUG"):
    reload = True


def post_fork(server, worker):
    server.log.info("worker %s", worker.pid)
