# Everything is set up on first use: a virtual environment in .venv, the Python packages of pyproject.toml, and the few
# Debian packages that tests call. `make help` lists the targets.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PERSIST ?=
PACK ?= eve
TARGET ?= latest
JOBS ?= 2
STATES ?= 100000
CUTS ?= 200
SEED ?= 1
SECONDS ?= 60
EXAMPLES ?= 1000
EVERY ?= 1
CASE ?=
ON ?=
AGAINST ?=
ROUNDS ?=
SCALE ?=
WRITE ?=
export PERSIST PACK TARGET

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
FUZZ := $(VENV)/.installed-fuzz
PROTOS := $(wildcard migrations/*/*.proto)

.PHONY: help run test check sweep powercut boot-test mutation-score bench fuzz fmt clean proto wheel deb security tools static

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUNTIME)  ## convert a copy of an example (or PERSIST=folder, in place) with PACK=eve TARGET=latest
	@$(BIN)/python fixtures/demo.py $${PERSIST:+--persist "$$PERSIST"} --pack "$$PACK" --target "$$TARGET"

check: tools static  ## format, lint, types, layers and the fast tests
	$(BIN)/python -m pytest -n $(JOBS) -m "not root and not slow"

test: tools static  ## everything: the checks and the whole test suite with coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(JOBS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

powercut: tools $(DEV)  ## cut the power of real file systems STATES=100000 times (needs root), with SEED=1 JOBS=2
	$(BIN)/python -m tests.powercut.sweep --states $(STATES) --seed $(SEED) --jobs $(JOBS)

boot-test: tools $(DEV)  ## cut the power of a whole machine in qemu CUTS=200 times (needs root), with SEED=1 JOBS=2
	@sh tests/support/install-tools.sh --machine
	$(BIN)/python -m tests.machine.sweep --cuts $(CUTS) --seed $(SEED) --jobs $(JOBS)

mutation-score: tools $(DEV)  ## remove each sync and record in turn, and say what caught that (needs root), with SEED=1 JOBS=2
	$(BIN)/python -m tests.mutation.score --seed $(SEED) --jobs $(JOBS)

fuzz: tools $(FUZZ)  ## fuzz the readers with atheris and the disks with hypothesis, SECONDS=60 and EXAMPLES=1000 of each, SEED=1
	$(BIN)/python -m tests.hostile.fuzz --seconds $(SECONDS) --seed $(SEED)
	FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/hostile/test_hostile_disk.py --hypothesis-seed=$(SEED) --timeout=0

sweep: tools $(DEV)  ## kill the program, and let the disk refuse, at every call (needs root), or at one in EVERY=1, with JOBS=2
	$(BIN)/python -m tests.durability.fault_sweep --every $(EVERY) --seed $(SEED) --jobs $(JOBS)

bench: tools $(DEV)  ## compare with cp, rsync and mv (needs root): CASE=name ON=vault,plain,xfs,btrfs AGAINST=cp,mv ROUNDS=5 SCALE=1 WRITE=1
	@$(BIN)/python -m benchmarks $(if $(CASE),--case $(CASE)) $(if $(ON),--on $(ON)) $(if $(AGAINST),--against $(AGAINST)) \
	  $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SCALE),--scale $(SCALE)) $(if $(WRITE),--write)

fmt: $(DEV)  ## format, and repair what the linter can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(DEV)  ## regenerate the protobuf modules of all packs
	@for file in $(PROTOS); do \
	  folder=$$(dirname "$$file"); echo "$$file"; \
	  $(BIN)/python -m grpc_tools.protoc -I "$$folder" --python_out="$$folder" --pyi_out="$$folder" "$$file" || exit 1; \
	done

wheel: $(DEV)  ## build the package into dist/
	$(BIN)/python -m build --wheel .

security: tools $(DEV)  ## say how exposed the units are, as systemd judges it; with WRITE=1 into docs/evidence/security.json
	$(BIN)/python -m tests.boot.security $(if $(WRITE),docs/evidence/security.json)

deb: tools $(DEV)  ## build the Debian package into dist/
	sh init/debian/build.sh $(BIN)/python build/deb
	@mkdir -p dist && mv build/deb/*.deb dist/

clean:  ## remove everything that make and the tools have made
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

static: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

tools:
	@sh tests/support/install-tools.sh

# --- set-up: stamps are older than pyproject.toml when it has changed ----------------------------------------------------

$(RUNTIME): pyproject.toml | $(BIN)/pip
	$(PIP) install --editable .
	@touch $@

$(DEV): pyproject.toml | $(BIN)/pip
	$(PIP) install --editable '.[dev]'
	@touch $(RUNTIME) $@

$(FUZZ): $(DEV)
	$(PIP) install --editable '.[fuzz]'
	@touch $@

$(BIN)/pip:
	@for python in python3.11 python3; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    sh tests/support/install-tools.sh --venv "$$python" && exec "$$python" -m venv --clear $(VENV); exit 1; \
	  fi; \
	done; \
	echo "make: Python 3.11 or newer is needed: neither python3.11 nor python3 is one." >&2; exit 1
