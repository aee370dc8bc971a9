# One command a habit; hooks and continuous integration call these targets and nothing else.
# TESTS narrows `make test`: make test TESTS=tests/store
TESTS ?= tests
PYTEST := .venv/bin/python -m pytest
RUN := .venv/bin/
RESULTS ?= /var/tmp

.PHONY: help demo test check lint types imports fmt soak fuzz bench prepare

help:      ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

prepare:   ## install what is needed, into .venv and by apt
	@setup/prepare

demo: prepare     ## the main job on real input: capture, mount, walk to any second, copy a file out
	@PATH="$(CURDIR)/.venv/bin:$$PATH" demo/run

test: prepare     ## all tests, the counted ones as a small slice
	$(PYTEST) $(TESTS) --durations=10

check: lint types imports  ## what must be green before a commit, with `make test`
	$(PYTEST) tests/habits

lint: prepare     ## format and lint, changing nothing
	$(RUN)ruff format --check .
	$(RUN)ruff check .

types: prepare    ## pyright strict over sources and tests
	$(RUN)pyright --pythonpath .venv/bin/python

imports: prepare  ## layers and contracts
	$(RUN)lint-imports

fmt: prepare      ## rewrite the sources in the house form
	$(RUN)ruff format .
	$(RUN)ruff check --fix .

soak: prepare     ## the stated counts: kills, power cuts, instants (hours)
	$(PYTEST) $(TESTS) --soak --timeout=0 -o faulthandler_timeout=0

fuzz: prepare     ## 100,000 mutated images into every parser (hours)
	$(PYTEST) tests/fuzz --cases 100000 --timeout=0 -o faulthandler_timeout=0

bench: prepare    ## us beside the peers, medians and ratios; a quiet machine and root
	@setup/prepare setup/apt-bench
	$(RUN)python benchmarks/peers.py --json $(RESULTS)/timefs-peers.jsonl
	$(RUN)python benchmarks/aged.py --json $(RESULTS)/timefs-aged.jsonl
	$(RUN)python benchmarks/bench_mount.py
	$(RUN)python benchmarks/nested.py
