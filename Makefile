# Everything starts from Python >= 3.11 and make: `make demo` and `make test` set up what they need.
#
#   make setup WHEELS=URL   also looks at another wheel index, e.g. one with the smaller CPU wheels of torch
#   make setup PYTHON=...   uses another Python

PYTHON ?= python3
VENV ?= .venv
WHEELS ?=
SPLIT ?= validation
LOOP ?= loop
SCENES ?= 2000
STEPS ?= 300
SHOWN ?= 6

BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
INDEX := $(if $(WHEELS),--extra-index-url $(WHEELS))
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet $(INDEX) --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format measure loop weights clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## create .venv with the package and what the tests need

# torch comes first and pinned: resolved by itself, it brings several gigabytes that a CPU has no use for.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed; name one with make setup PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(PIP) torch
	@$(PIP) --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## fill holes of held-out scenes: a contact sheet and a page in demo/
	@$(BIN)/mta demo --out demo

test: lint ## lint, type check and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(STAMP) ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

measure: $(STAMP) ## measure the embedded model (SPLIT=validation or test)
	@$(BIN)/mta measure --split $(SPLIT)

# Every word that the branch learns from here was written by an annotator that saw nothing but pixels.
loop: $(STAMP) ## pictures -> annotations -> a branch trained on them -> inpainting, in LOOP=loop/ (minutes)
	$(BIN)/python tools/sticker_pictures.py $(LOOP)/pictures --scenes $(SCENES)
	$(BIN)/mta annotate $(LOOP)/pictures --out $(LOOP)/dataset --annotators sticker --workers 0 --shard-size 500
	$(BIN)/mta data stats $(LOOP)/dataset
	$(BIN)/mta data preview $(LOOP)/dataset --out $(LOOP)/preview.html
	$(BIN)/mta train --recipe sticker --out $(LOOP)/run --set data.source=$(LOOP)/dataset \
		--set steps=$(STEPS) --set validation.every=$(STEPS)
	$(BIN)/mta demo --branch $(LOOP)/run/branch --out $(LOOP)/demo --count $(SHOWN)

# Hours on two cores; every step keeps its state in runs/ and goes on where it was.
weights: $(STAMP) ## rebuild the embedded weights by their recipes (hours)
	$(BIN)/python tools/sticker_corpus.py runs/corpus
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 \
		tools/train_autoencoder.py runs/corpus runs/autoencoder --minutes 60
	$(BIN)/python tools/train_latent_vgg.py runs/autoencoder/vae runs/latent_vgg --minutes 5
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 \
		tools/train_base.py runs/corpus runs/autoencoder/vae runs/base --minutes 150 \
		--vgg runs/latent_vgg/latent_vgg --critic
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 \
		tools/train_autoencoder.py runs/corpus runs/decoder --decoder-of runs/autoencoder/vae --minutes 15
	$(BIN)/python tools/train_judge.py
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 tools/train_annotators.py runs/annotators --minutes 40
	$(BIN)/python tools/install_weights.py runs
	$(BIN)/mta train --recipe sticker --out runs/branch
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 \
		tools/train_hole_reader.py runs/decoder/vae runs/reader-0 --minutes 12
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 \
		tools/train_hole_reader.py runs/decoder/vae runs/reader-1 --minutes 12 --seed 1
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 \
		tools/refine_branch.py runs/branch/branch runs/refined \
		runs/reader-0/reader runs/reader-1/reader --minutes 60
	$(BIN)/python tools/install_weights.py runs

clean: ## remove caches and the virtual environment; runs and results stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf src/*.egg-info
