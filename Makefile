# make demo    everything from text to a generated story, in .venv, nothing to set up before
# make test    every test, formatter, linter and the type checker
# make fault-test   faults put into every job on purpose: under half an hour (docs/reliability.md)
# make fuzz    every parser with files at random, for half an hour (FUZZ_MINUTES=30)
# make course  the experiments of CS336's first assignment, tiny, and their report
# make gpu-bundle   what a GPU machine without a network needs, in one folder
# make wheel   the package as one file in dist/, checked
# make docs    the site in site/, built without a warning
# make dev     an editable install with an optimised Rust core, for people who change it

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv
RUST   := $(shell find crates -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock

.PHONY: demo course test fault-test fuzz dev lint format wheel docs cli-reference gpu-bundle clean

demo: $(VENV)/.installed
	$(BIN)/cs336lm demo --out demo/

course: $(VENV)/.installed
	CS336LM=$(BIN)/cs336lm PYTHON=$(BIN)/python examples/course/run.sh

test: $(VENV)/.installed lint
	cargo test --quiet --package bpe --lib --tests
	cargo test --quiet --package bpe --doc
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

fault-test: $(VENV)/.installed
	$(BIN)/python -m tests.faults all

FUZZ_MINUTES ?= 30

fuzz: $(VENV)/.installed
	cargo run --quiet --release --package bpe --example fuzz -- --minutes $(FUZZ_MINUTES)
	cargo run --quiet --release --package bpe --example fuzz_parsers -- --minutes $(FUZZ_MINUTES)
	CS336LM_FUZZ=20000 CS336LM_DAMAGES=5000 OMP_NUM_THREADS=1 $(BIN)/pytest -n auto \
		tests/test_fuzz.py tests/test_damage.py

lint: $(VENV)/.installed
	cargo fmt --check
	cargo clippy --quiet --all-targets --all-features -- -D warnings
	cargo clippy --quiet --package bpe --no-default-features -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed
	cargo fmt
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dev: $(VENV)/.installed

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cs336lm needs Python 3.11 or newer; say which with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# uv installs the same packages in a quarter of pip's time. It reads none of pip's settings, so
# where only pip knows the way (a mirror in pip.conf), pip goes it.
$(VENV)/.tools: pyproject.toml | $(BIN)/python
	@echo "Installing the tools and what the package needs into $(VENV) (PyTorch is large) ..."
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' 'uv>=0.9'
	$(UV) pip install --quiet --python $(BIN)/python --group dev --requirement pyproject.toml || \
	    $(BIN)/python -m pip install --quiet --group dev
	touch $@

# `maturin develop` installs the package in place with what it depends on: an edit in python/ is
# live at once, an edit in crates/ at the next `make`.
$(VENV)/.installed: $(VENV)/.tools $(RUST)
	@echo "Building the Rust core ..."
	. $(BIN)/activate && PIP_QUIET=1 maturin develop --release --quiet
	touch $@

gpu-bundle: $(VENV)/.installed
	$(BIN)/python benchmarks/bundle/make.py --out gpu-bundle

# The wheel's tag names the C library that it was linked with. MATURIN says otherwise:
# make wheel MATURIN='--zig --compatibility manylinux_2_28' (docs/releasing.md).
wheel: $(VENV)/.installed
	rm -rf dist
	$(BIN)/maturin build --release --locked --quiet --out dist $(MATURIN)
	$(BIN)/python release/check_wheel.py dist/*.whl

$(VENV)/.docs: $(VENV)/.tools
	$(UV) pip install --quiet --python $(BIN)/python --requirement pyproject.toml --extra docs || \
	    $(BIN)/python -m pip install --quiet '.[docs]'
	touch $@

docs: $(VENV)/.installed $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

cli-reference: $(VENV)/.installed
	$(BIN)/python docs/build/cli_reference.py

clean:
	rm -rf target $(VENV) demo course gpu-bundle dist site
