#!/usr/bin/env bash
set -euo pipefail

# One place for the defaults.
export DATABASE_URL="postgresql://api@db/api"
cd /srv/api
alembic upgrade head
exec /srv/api/.venv/bin/gunicorn api.main:app \
    -k uvicorn.workers.UvicornWorker \
    -w "${WEB_CONCURRENCY:-4}" --bind "0.0.0.0:${PORT:-8000}" \
    --timeout 90 --access-logfile - --forwarded-allow-ips="*"
