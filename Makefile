# Everything from a fresh clone, with only Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest --durations=12 -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: setup setup-demo demo test faults faults-tests cases test-external test-all lint bench lock clean help

help:            ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/.all   ## .venv with everything, locked
setup-demo: .venv/.demo

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "headrace needs Python 3.11 or newer; set PYTHON=python3.x"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check 'uv>=0.9'

.venv/.all: .venv/bin/uv requirements.lock pyproject.toml
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python --no-deps -e .
	@touch .venv/.all .venv/.demo

# The demo installs what it needs only: the same locked versions, fewer of them.
.venv/.demo: .venv/bin/uv requirements.lock pyproject.toml
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python -c requirements.lock -e '.[demo]'
	@touch .venv/.demo

demo: setup-demo ## real flights through real Kafka: speed, kills, an event
	$(BIN)/headrace demo

test: setup      ## all that needs nothing but Python (at most 20 minutes); names what it leaves out
	$(PYTEST) -m "not ui and not external"
	@echo "left out: external (real Airflow, MLflow server, kfp, PostgreSQL and Kafka Connect, installed where they are missing), full (what takes too long: 30 kills of the loop, its year against what needs no loop, most rows of the fault suite, three brokers, three quarters of the generated contracts), ui (no such tests yet); make test-all"

test-external: setup ## against real Airflow, MLflow, kfp, PostgreSQL and Kafka Connect; installs them
	$(PYTEST) -m external

# SEED, ROWS=2,4,7, COUNT and MINUTES as in `python -m tests.faults --help`
faults: setup    ## things broken on purpose, as often as docs/reliability.md says; SEED=… ROWS=2,4,7 COUNT=… MINUTES=…
	$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(ROWS),--rows $(ROWS)) $(if $(COUNT),--count $(COUNT)) $(if $(MINUTES),--minutes $(MINUTES))

FAULTS ?= tests/faults
faults-tests: setup ## the tests of faults at their full counts; FAULTS=tests/faults/test_kill.py for one
	$(PYTEST) -m faults --faults full $(FAULTS)

cases: setup     ## contracts against Great Expectations: all generated cases, of which `make test` has a quarter
	$(BIN)/python -m pytest --faults full tests/contract/test_contracts_differential.py

test-all: setup  ## every tier
	$(PYTEST) --faults full

lint: setup      ## ruff, mypy --strict, headrace lint
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/headrace lint

bench: setup     ## us beside peers, in the same run; ratios
	$(BIN)/python bench/run.py

lock:            ## requirements.lock from pyproject.toml
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate -q -o requirements.lock

clean:           ## forget the environment and the stack's data
	-$(BIN)/headrace down --purge
	rm -rf .venv .headrace dist
