# Every command of the project; `make help` lists them. Settings: PYTHON (an interpreter from 3.11 on),
# CARGO_TARGET_DIR (where cargo builds; default target/), SECONDS_EACH (of fuzzing each target; default 60), ARGS
# (arguments for serve, gate, bench, late, profile, pytest, fuzz; parts of test-long). Long tests take WTIO_SEEDS, WTIO_SEED
# and WTIO_SOAK_SECONDS.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory --no-builtin-rules
# Tests and benchmarks start hundreds of processes, and each would compile wtio again.
unexport PYTHONDONTWRITEBYTECODE
# cargo may be installed for this user without being on the PATH.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

BIN := .venv/bin
SECONDS_EACH ?= 60
# What builds the extension for `types` and `docs`; nothing in `make check`, which has built it already.
EXTENSION := build
RUST_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find crates -name '*.rs' -o -name Cargo.toml)
# The border crate has no tests of its own: linking it outside of Python needs a libpython.
CARGO_TESTS := --workspace --exclude wtio-core --locked
# Python tests whose coverage is not measured, and that `make test` runs at the same time as those whose is: of the first, it differs
# from machine to machine; the others run for long what others run once, or nothing of the library.
PEERS := tests/browser tests/interop tests/network tests/soak tests/docs

# Stops with one line when something is missing to build with.
check_toolchain = $(eval problem := $(shell tools/toolchain))$(if $(problem),$(error $(problem)))

.PHONY: help setup build demo demo-cluster serve check test test-long pytest coverage test-peers interop test-rust fuzz lint fmt types gate bench bench-quick late
.PHONY: docs profile clean browsers valgrind wheels test-wheels release audit

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/dev.stamp build browsers ## Install everything that development needs, Chromium and Firefox included

build: .venv/built.stamp ## Build the extension (release) and install wtio into .venv, editable

demo: build ## Show what it does: streams, datagrams and 64 MiB each way between two processes
	@$(BIN)/python -m wtio demo $(ARGS)

demo-cluster: .venv/dev.stamp build ## A chat and a board on two workers through NATS, with a page that has buttons to deploy and to kill
	@$(BIN)/python examples/cluster.py $(ARGS)

serve: build ## Echo server, with a page for the browser to try it from
	@$(BIN)/python -m wtio serve $(ARGS)

check: .venv/dev.stamp .venv/checked.stamp ## Lint, types and the fast tests, in under a minute; no browser, no release build
	@tools/check

# Fuzzing takes longer in `make test-long`.
test: export SECONDS_EACH := 10
# What cargo notes for the next build costs a tenth of the first one.
test: export CARGO_INCREMENTAL := 0
test: ## Everything: set-up, documentation, lint, types, Rust tests, fuzzing, costs, Python tests with their coverage
	@tools/test + test-rust after:setup docs gate fuzz test-peers + setup coverage lint types

test-long: setup ## What takes hours: 10 000 engine seeds, 5 000 programs, a soak of 30 minutes, tests marked long
	@tools/test-long $(ARGS)

pytest: .venv/dev.stamp build browsers ## Python tests only, such as: make pytest ARGS="tests/api -x"
	@$(BIN)/python -m pytest $(ARGS)

coverage: .venv/dev.stamp build browsers ## Python tests but those of test-peers, and which lines and branches of the library they run
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m coverage run -m pytest --durations=20 $(PEERS:%=--ignore=%) $(ARGS)
	@$(BIN)/python tools/coverage_report.py

test-peers: .venv/dev.stamp build browsers ## Python tests with browsers, other implementations and networks of the kernel, and long ones
	@$(BIN)/python -m pytest --durations=20 $(PEERS) $(ARGS)

interop: .venv/dev.stamp build browsers ## Other implementations against ours, both ways, as a table (docs/interop.md)
	@$(BIN)/python -m pytest tests/interop/matrix --quiet $(ARGS)

test-rust: ## Rust tests only
	$(check_toolchain)
	cargo test $(CARGO_TESTS) --quiet
	cargo test --package wtio-net --features portable --locked --quiet

fuzz: .venv/dev.stamp build ## Fuzz every parser, SECONDS_EACH=60 for each; such as: make fuzz ARGS="qpack --keep"
	@$(BIN)/python -m fuzz.run --seconds $(SECONDS_EACH) $(ARGS)

lint: .venv/dev.stamp ## ruff, rustfmt and clippy, all without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	cargo fmt --all --check
	cargo fmt --manifest-path tests/interop/peers/wtransport/Cargo.toml --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path benchmarks/bare/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked --quiet -- --deny warnings
	cargo clippy --package wtio-net --all-targets --features portable --locked --quiet -- --deny warnings

types: .venv/dev.stamp $(EXTENSION) ## mypy (strict), stubtest for the extension's stub, completeness of the public types
	$(BIN)/mypy
	$(BIN)/stubtest wtio._core --mypy-config-file pyproject.toml
	@tools/complete-types

docs: .venv/dev.stamp $(EXTENSION) ## The documentation, with a search and the reference, into docs/_build/html; warnings are errors
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --doctree-dir docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

fmt: .venv/dev.stamp ## Format Python and Rust
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .
	cargo fmt --all
	cargo fmt --manifest-path tests/interop/peers/wtransport/Cargo.toml
	cargo fmt --manifest-path fuzz/Cargo.toml
	cargo fmt --manifest-path benchmarks/bare/Cargo.toml

gate: .venv/dev.stamp build valgrind ## Count instructions of echo, bulk, ...; ARGS=--renew accepts, ARGS="--against COMMIT" compares
	@$(BIN)/python -m benchmarks.gate $(ARGS)

bench: .venv/dev.stamp build ## Benchmarks against other libraries, table and chart (tens of minutes); ARGS=--scaling, --paths, --fan-out: other
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-quick: .venv/dev.stamp build ## The same with less data, in about two minutes
	$(BIN)/python benchmarks/run.py --quick $(ARGS)

late: .venv/dev.stamp build ## Loops that are late and readers that pause, with bars, in about two minutes
	@$(BIN)/python -m benchmarks.late $(ARGS)

profile: .venv/dev.stamp build ## Where the time of an echo, a megabyte and a handshake goes (docs/profile.md); needs perf
	@$(BIN)/python -m benchmarks.profile $(ARGS)

wheels: ## The sdist and the wheels for all platforms, into dist, checked; ARGS=linux-x86_64: some, --twice: reproducible?
	@"$$(tools/find-python)" -m tools.wheels $(ARGS)

test-wheels: ## Every wheel in dist that can run here, each in an empty environment; ARGS="windows musl": some
	@"$$(tools/find-python)" -m tools.wheels.run $(ARGS)

audit: ## Known holes and terms of what wtio is built from and with; workflows; needs the network
	@tools/audit

release: .venv/dev.stamp build ## Make a release ready: build, check and try everything; it stops before uploading
	@tools/release

clean: ## Remove what was built and installed here
	rm -rf .venv target fuzz/target fuzz/findings dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis python/wtio/_core*.so
	rm -f .coverage .coverage.*
	find python tests examples benchmarks fuzz -name __pycache__ -type d -prune -exec rm -rf {} +

browsers:
	@tools/environment browsers

valgrind:
	@tools/environment valgrind

.venv/built.stamp: $(RUST_SOURCES)
	$(check_toolchain)
	@tools/environment build
	@echo "building the extension, which takes a few minutes the first time"
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/maturin develop --release --locked
	@touch $@

# The extension as it is, if it is newer than its sources; otherwise one of the dev profile, which links faster.
.venv/checked.stamp: $(RUST_SOURCES)
	$(check_toolchain)
	@if ! $(MAKE) --question .venv/built.stamp; then \
		tools/environment build && VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/maturin develop --locked --quiet && \
		rm -f .venv/built.stamp; \
	fi
	@touch $@

.venv/dev.stamp: requirements-dev.txt
	$(check_toolchain)
	@tools/environment dev
	@touch $@
