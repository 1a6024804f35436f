# Two commands do everything on a fresh machine: `make demo` and `make test`. Each installs what it needs first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ROWS ?= 200000
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help install demo test test-random wheel test-all fuzz mutants lint format bench bench-models docs clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

$(VENV)/.installed: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"clickparity needs Python 3.11, 3.12 or 3.13; got {v[0]}.{v[1]}. Try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed  ## .venv with everything pinned (about 2 minutes)

demo: install  ## the whole product on a synthetic log; leaves demo_out/report.html
	$(BIN)/clickparity demo --out demo_out --rows $(ROWS)

test: install  ## every default test
	$(BIN)/python -m pytest -n 2 --dist loadfile

ifndef SEED
SEED := $(shell date +%s)
endif
test-random: install  ## every default test, files and the tests in them in another order (SEED=... for the same again)
	@echo "SEED=$(SEED)"
	$(BIN)/python -m pytest -n 2 --dist loadfile --random-order --random-order-bucket=module --random-order-seed=$(SEED)

wheel: install  ## dist/clickparity-*.whl
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build

test-all: install  ## the slow ones too, and property tests on other examples than last time
	$(BIN)/python -m pytest -m "not gpu and not site" --timeout=1800 --hypothesis-profile=default

fuzz: install  ## 100,000 good and bad requests against the local server, 20,000 a process
	@for seed in 0 1 2 3 4; do FUZZ_REQUESTS=20000 FUZZ_SEED=$$seed $(BIN)/python -m pytest -q -s tests/serving/server/test_local_server_storm.py || exit 1; done

mutants: install  ## small faults in gates, calibration, metrics, ...: how many do the tests notice? (MUTANTS="--sample 30 --seed 1 --room drift")
	$(BIN)/python -m tests.mutation $(MUTANTS)

lint: install  ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pipeline models serving experiments jobs clickparity
	$(BIN)/mypy --explicit-package-bases benchmarks
	$(BIN)/lint-imports
	$(BIN)/mypy docs

format: install  ## rewrite the code as ruff likes it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## every benchmark against the peers that are installed; BENCH=--quick: minutes, not hours
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python benchmarks/all.py $(BENCH)

bench-models: install  ## quality of the models against a known truth: two to three hours, goes on where it stopped
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python benchmarks/model_quality.py --workdir quality_out

docs: install  ## the documentation in site/; warnings, broken links and outside requests are errors
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	$(BIN)/python -m pytest -q -m site tests/docs
	@echo "open site/index.html, or: python3 -m http.server --directory site"

clean:  ## the demo's output and caches; keeps .venv
	rm -rf demo_out dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
