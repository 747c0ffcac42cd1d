# `make run` and `make test` do all the set-up they need: Python 3.11 or newer, and make, are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 10000
ARGS ?=

.PHONY: install run test quick faults simulate bench clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,embed,test]'
	touch $@

run: install  ## Starts the database with real input, shows it, and keeps serving; ARGS=--once ends after the show.
	$(BIN)/vecraft demo $(ARGS)

test: install  ## Everything: lint, types, unit, simulation, real Kafka.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

quick: install  ## What needs neither Kafka nor much time.
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not kafka and not slow" $(ARGS)

faults: install  ## The fault suite with full rounds; what it measured goes to .cache/faults.md, for docs/reliability.md.
	mkdir -p .cache && rm -f .cache/faults.md
	VECRAFT_FAULT_REPORT=.cache/faults.md VECRAFT_FAULT_ROUNDS=10 VECRAFT_FAULT_RECORDS=100000 \
		$(BIN)/python -m pytest -v tests/faults $(ARGS)
	cat .cache/faults.md

simulate: install  ## Long simulations: make simulate SEEDS=100000
	$(BIN)/python -m tests.simulation $(SEEDS)

bench: install  ## Beside the peers; ARGS="--write docs/benchmarks.md" keeps the figures, ARGS=scaling shows how costs grow, ARGS=datatypes what each saves, ARGS=collections what many cost, ARGS=snapshots what those do.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf $(VENV) .cache build *.egg-info
