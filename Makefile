# `make run` and `make test` do all of their own set-up on a fresh Debian 12.

# The first Python that runs and is 3.11 or later.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; exit; }; \
  done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation
RUNTIME := $(VENV)/.runtime
STAMP := $(VENV)/.installed
FIRE := $(VENV)/.fire
EVIDENCE := docs/evidence
LOCK := --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
  --no-emit-options
export PYTHON
# Each of the many programs that the tests start would compile all of us anew.
export PYTHONDONTWRITEBYTECODE =

PYTEST := $(BIN)/pytest
MEASURED := $(BIN)/coverage run -m pytest
# As many workers as cores; tests of one file share the programs that its fixtures start.
UNIT := --numprocesses auto --dist worksteal tests/unit
PROCESS := --numprocesses auto --dist loadfile tests/process tests/fire tests/mutation tests/packaging
# Each lane has a Tor network of its own.
NETWORK := --numprocesses 2 --dist loadfile tests/network

.DEFAULT_GOAL := help

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: packages-run $(RUNTIME) ## start isoproxy on 127.0.0.1:9250 with a tor of its own
	$(BIN)/isoproxy run

test: packages-test $(STAMP) lint ## everything that must pass, and what of the code it covers (12 min)
	$(BIN)/coverage erase
	$(MEASURED) $(UNIT)
	$(MEASURED) $(PROCESS)
	$(PYTEST) $(NETWORK)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

demo: packages-demo $(RUNTIME) ## a private Tor network, isoproxy on it, and curl lines to try
	$(BIN)/python -m tests.kit.demo

lint: $(STAMP) ## format, rules of style, types, and which room may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(STAMP) ## the tests that need no program and no network (1 min)
	$(PYTEST) $(UNIT)

pythons: ## the unit tests with every other Python from 3.11 on that is here (2 min each)
	@scripts/pythons

process: packages-test $(STAMP) ## the tests that start programs
	$(PYTEST) $(PROCESS)

network: packages-test $(STAMP) ## the tests over a private Tor network
	$(PYTEST) $(NETWORK)

slow: packages-test $(STAMP) ## what measures time under load, alone on this machine (6 min)
	$(PYTEST) -m slow tests

interop: packages-interop $(STAMP) ## programs of others: btcd, bcoin, neutrino, kyoto, nakamoto, bitcoinj, ncdns, py-libp2p; Electrum, browsers, Java, Node, Go
	$(PYTEST) -m interop tests

fire: packages-fire $(FIRE) ## the long runs: fuzzing, soak, chaos, leaks, plaintext, linkability (2 h; root for all of it)
	$(BIN)/python -m tests.fire.fuzz --all --seconds 60
	$(BIN)/python -m tests.fire.soak --minutes 30
	$(BIN)/python -m tests.fire.chaos --minutes 10
	$(BIN)/python -m tests.fire.leaks --minutes 3
	$(BIN)/python -m tests.fire.plaintext --streams 10000
	$(BIN)/python -m tests.fire.linkability
	$(BIN)/python -m tests.fire.forgeries

evidence: packages-fire $(FIRE) ## run soak, chaos, leaks and linkability anew into docs/evidence, and draw their plots (1 h)
	$(BIN)/python -m tests.fire.soak --minutes 30 --out $(EVIDENCE)
	$(BIN)/python -m tests.fire.chaos --minutes 10 --out $(EVIDENCE)
	$(BIN)/python -m tests.fire.leaks --minutes 3 --out $(EVIDENCE)
	$(BIN)/python -m tests.fire.linkability --out $(EVIDENCE)
	$(BIN)/python -m tests.fire.plots $(EVIDENCE)

screenshots: packages-test $(STAMP) ## dashboard and terminal view at work, into docs/evidence (3 min)
	$(BIN)/python -m tests.kit.screenshots

programs: packages-interop $(STAMP) ## which circuits real programs get, into docs/evidence (5 min)
	$(BIN)/python -m tests.network.real.table

mutants: packages-test $(STAMP) ## break each claim of the threat model once, and see its test fail (8 min)
	$(BIN)/python -m tests.mutation

bench: packages-test $(STAMP) ## ratios against other proxies (7 min) and against Tor's own port (5 min)
	$(BIN)/python -m benchmarks.front
	$(BIN)/python -m benchmarks.tor

bench-quick: packages-test $(STAMP) ## the first of them in one short round: that the benchmarks run
	$(BIN)/python -m benchmarks.front --repetitions 1 --seconds 0.5

deb: ## build the Debian package into dist/
	@packaging/build-deb

deb-check: packages-test packages-deb $(STAMP) ## build, install, use and remove it on a clean Debian 12 and 13 (root; 25 min)
	$(BIN)/python -m tests.packaging.clean_debian

release: $(STAMP) ## of a tagged commit: source archive, wheel, signed checksums, into dist/release
	@packaging/release

changelog: $(STAMP) ## what the fragments in newsfragments/ come to
	@$(BIN)/towncrier build --draft --version unreleased

lock: $(STAMP) ## renew requirements/*.txt from pyproject.toml
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/pip install --quiet pip-tools
	.cache/lock/bin/pip-compile $(LOCK) --upgrade --extra=dev --extra=watch -o requirements/dev.txt pyproject.toml
	.cache/lock/bin/pip-compile $(LOCK) --upgrade --extra=watch -c requirements/dev.txt \
	  -o requirements/runtime.txt pyproject.toml
	.cache/lock/bin/pip-compile $(LOCK) --upgrade --allow-unsafe -c requirements/dev.txt \
	  -o requirements/package.txt requirements/package.in
	.cache/lock/bin/pip-compile $(LOCK) --upgrade -o requirements/fire.txt requirements/fire.in

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) .cache dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/.cache

packages-run packages-demo packages-test packages-interop packages-fire packages-deb:
	@scripts/system-packages $(@:packages-%=%)

# What is built here, we ourselves and libraries without a wheel, is built with what is locked, too.
$(RUNTIME): requirements/package.txt requirements/runtime.txt pyproject.toml | packages-run
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "isoproxy needs Python 3.11 or later; set PYTHON=/path/to/it" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements/package.txt
	$(PIP) --require-hashes -r requirements/runtime.txt
	$(PIP) --no-deps --editable .
	@touch $@

$(STAMP): requirements/dev.txt $(RUNTIME)
	$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(FIRE): requirements/fire.txt $(STAMP)
	$(PIP) --require-hashes -r requirements/fire.txt
	@touch $@

.PHONY: help run test demo lint unit pythons process network slow interop programs mutants fire evidence screenshots \
  bench bench-quick deb deb-check release changelog lock clean \
  packages-run packages-demo packages-test packages-interop packages-fire packages-deb
