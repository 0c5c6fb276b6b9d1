# A few verbs, each of which makes the virtual environment it needs. `make` alone lists them.
#
#   make run PYTHON=python3.13      which Python to make the environment with (3.11 or later)
#   make test ARGS='-k lexer'       what else to tell pytest
#   EXAMPLE_PORT=9090 make run      another port for the examples

VENV ?= .venv
PYTHON ?=
JOBS ?= 2
ARGS ?=

# Looked for in this order when PYTHON is not given. A name may be there and not work (a shim of pyenv).
PYTHONS := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11 python3.14)
# Who looks on sees what pip and mkdocs do, which takes a minute; a log has the outcome.
QUIET := $(shell test -t 2 || echo --quiet)
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check $(QUIET)
# pip rewrites these; a stamp is stale when what it was installed from has changed.
METADATA := pyproject.toml caddysnake/__init__.py
SPEEDUPS := $(wildcard speedups/*.py speedups/pyproject.toml speedups/src/*)

.DELETE_ON_ERROR:
.PHONY: help run test lint docs generated bench bench-full scaling build clean

help:
	@echo 'make run         start the three example apps behind a stock Caddy and print where'
	@echo 'make test        run the tests'
	@echo 'make lint        check style and types'
	@echo 'make docs        build the documentation into site/'
	@echo 'make generated   write completion scripts, the manual page and pages of the docs anew'
	@echo 'make bench       measure against the peers, on this machine (less than 10 minutes)'
	@echo 'make bench-full  the same with everything, and longer (an hour or two)'
	@echo 'make scaling     what grows with connections, workers, tenants, sites, processes and schedules'
	@echo 'make build       make the wheel and the source distribution in dist/'
	@echo 'make clean       remove everything that the above made'

run: $(VENV)/.installed-run
	@$(VENV)/bin/caddysnake run --caddy --config Caddyfile.example

test: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -n $(JOBS) $(ARGS)

lint: $(VENV)/.installed-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict $(QUIET)

generated: $(VENV)/.installed-test
	$(VENV)/bin/python .ci/generate.py

bench: $(VENV)/.installed-bench
	$(VENV)/bin/python -m benchmarks $(ARGS)

scaling: $(VENV)/.installed-bench
	$(VENV)/bin/python -m benchmarks.scaling $(ARGS)

bench-full: $(VENV)/.installed-bench
	$(VENV)/bin/python -m benchmarks --full $(ARGS)

build: $(VENV)/.installed-build
	$(VENV)/bin/python -m build --outdir dist

clean:
	rm -rf .venv .venv-* build speedups/build speedups/*.egg-info speedups/src/*.egg-info dist site *.egg-info benchmarks/.venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is the last thing that `venv` installs, so an interrupted run is taken up again.
$(VENV)/bin/pip:
	@for python in $(PYTHONS); do \
		if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making $(VENV) with $$("$$python" --version)"; \
			exec "$$python" -m venv $(VENV); \
		fi; \
	done; \
	echo 'There is no Python 3.11 or later with the modules venv and ensurepip among: $(PYTHONS).' >&2; \
	echo 'Install one (Debian: python3 and python3-venv) or name it: make PYTHON=/path/to/python3.' >&2; \
	exit 1

# Reads request heads in C. Where no compiler is, the same is done in Python.
define speedups
	@if ! command -v cc >/dev/null; then \
		echo 'No C compiler (cc): without caddysnake-speedups, heads are read in Python.'; \
	elif ! $(PIP) install ./speedups; then \
		echo 'caddysnake-speedups cannot be built (see above): without it, heads are read in Python.'; \
	fi
endef

# $(call install,EXTRAS): the package itself, editable, with these extras.
define install
	@echo 'Installing into $(VENV): $(1)'
	@$(PIP) install --editable '.[$(1)]'
	@touch $@
endef

$(VENV)/.installed-run: $(METADATA) $(SPEEDUPS) | $(VENV)/bin/pip
	$(speedups)
	$(call install,caddy$(comma)examples)

$(VENV)/.installed-test: $(METADATA) $(SPEEDUPS) | $(VENV)/bin/pip
	$(speedups)
	$(call install,test)

$(VENV)/.installed-lint: $(METADATA) | $(VENV)/bin/pip
	$(call install,lint$(comma)test)

$(VENV)/.installed-docs: $(METADATA) | $(VENV)/bin/pip
	$(call install,docs)

$(VENV)/.installed-bench: $(METADATA) $(SPEEDUPS) | $(VENV)/bin/pip
	$(speedups)
	$(call install,caddy$(comma)store)

$(VENV)/.installed-build: $(METADATA) | $(VENV)/bin/pip
	$(call install,build)

# What all but the benchmarks need, in one go.
$(VENV)/.installed-all: $(METADATA) $(SPEEDUPS) | $(VENV)/bin/pip
	$(speedups)
	$(call install,build$(comma)docs$(comma)lint$(comma)test)
	@touch $(addprefix $(VENV)/.installed-,build docs lint run test)

comma := ,
