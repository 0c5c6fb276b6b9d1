from gevent import monkey

monkey.patch_all()

worker_class = "gevent"
worker_connections = 500
workers = 2
bind = ["127.0.0.1:5000", "[::1]:5000"]
forwarded_allow_ips = "10.0.0.1,10.0.0.2"
pythonpath = "/srv/lib,/srv/more"
statsd_host = "localhost:8125"
reload = True
reload_extra_files = ["templates/base.html"]
user = "flask"
