# The two commands of the README: `make demo` and `make test`. Both make .venv where it is missing
# or stale.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test lint resume bench chain scale scale-images scale-store test-processors \
	test-fuzz test-attacks test-classes test-invalidation test-survival test-cluster test-storage \
	test-gpu invalidation-table install wheels check-install stale clean

BIN := .venv/bin
INSTALLED := .venv/installed
INSTALL := PYTHON='$(PYTHON)' TORCH='$(TORCH)' WHEELS='$(WHEELS)' FOLDER='$(FOLDER)' envs/install.sh
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Snakemake keeps a cache at home; a user without a home to write to gets one here.
CACHE := $(shell d="$${XDG_CACHE_HOME:-$${HOME:-/nonexistent}/.cache}"; \
	mkdir -p "$$d" 2>/dev/null && test -w "$$d" || echo "$(CURDIR)/.cache")
ifneq ($(CACHE),)
export XDG_CACHE_HOME := $(CACHE)
endif

help: ## list the commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 28

demo: $(INSTALLED) ## run the workflow on rendered scenes, print its tables (4 to 10 minutes)
	$(BIN)/snakemake --cores all
	@$(BIN)/python -m brnf.evaluate.show results/demo results/demo-inseparable

test: lint ## check style and types, then run all tests and the examples of the docstrings
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest --doctest-modules brnf

# Some settings, and after -- some tests: make test-processors ARGS="--only SSE threads --
# tests/flow"
test-processors: $(INSTALLED) ## count numeric tests under other instructions, threads, users
	$(BIN)/python -m tests.processors $(ARGS)

test-fuzz: $(INSTALLED) ## read 21,000 spoilt or misleading files, count how that ends (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --jobs 2

# ARGS="--device cpu" tries the script itself; ARGS="--only twice" runs one of its checks.
test-gpu: $(INSTALLED) ## show that one GPU does what it should (8 minutes at most; none: one line)
	$(BIN)/python -m tests.gpu $(ARGS)

test-attacks: $(INSTALLED) ## damage every kind of product in every way, see each made anew
	$(BIN)/python -m pytest --verbosity 1 tests/workflow/attack_*.py

test-classes: $(INSTALLED) ## take 300 classes, two bytes each, through the whole workflow
	$(BIN)/python -m pytest --verbosity 1 --durations 3 tests/scale/many_classes.py

test-invalidation: $(INSTALLED) ## let Snakemake tell what every change reruns, over real runs
	$(BIN)/python -m pytest --verbosity 1 --durations 10 tests/workflow/matrix_*.py

invalidation-table: $(INSTALLED) ## write docs/invalidation.md, the table of what a change reruns
	$(BIN)/python tests/workflow/invalidation.py > docs/invalidation.md

lint: $(INSTALLED) ## check style and types only
	$(BIN)/ruff check brnf tests benchmarks envs setup.py
	$(BIN)/ruff format --check brnf tests benchmarks envs setup.py
	$(BIN)/mypy
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint

# SHARDS="4 64 512" measures what a job costs at these numbers of shards (hours; 4 is the default).
test-cluster: $(INSTALLED) ## run on a real SLURM, started for it (root; Debian: slurm-wlm, munge)
	@tests/slurm/start.sh --check
	@$(BIN)/python -c 'import snakemake_executor_plugin_cluster_generic' 2>/dev/null && \
		$(BIN)/python -c 'import snakemake_executor_plugin_slurm' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cluster]'
	$(BIN)/python -m pytest --numprocesses 0 --capture no --verbosity 1 \
		--durations 0 --durations-min 5 tests/slurm $(ARGS)

# ARGS="-k coco" is the shortest one, "-k photographs" the shortest of a whole run.
test-storage: $(INSTALLED) ## run without a shared disk, in files and S3 (minutes; Debian: rsync)
	@command -v rsync >/dev/null || \
		{ echo 'make test-storage: no rsync; Debian: apt-get install rsync'; exit 1; }
	@$(BIN)/python -c 'import boto3, flask, flask_cors, moto, snakemake_storage_plugin_fs, \
		snakemake_storage_plugin_s3, snakemake_executor_plugin_cluster_generic' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test-storage]'
	$(BIN)/python -m pytest --numprocesses 0 --verbosity 1 -o timeout=3000 \
		--durations 0 --durations-min 5 tests/storage $(ARGS)

# CONFIG and ARGS are those of the call that was interrupted; JOBS=stop ends jobs that outlived it
# instead of waiting for them.
resume: $(INSTALLED) ## go on after a crash: make resume CONFIG=config/voc12.yaml ARGS="..."
	$(BIN)/python -m brnf.workflow.resume --survivors $(or $(JOBS),wait) -- --cores all $(ARGS) \
		$(if $(CONFIG),--configfile $(CONFIG))

test-survival: $(INSTALLED) ## kill the tiny run at random moments, go on, compare to the byte
	$(BIN)/python tests/survival/survive.py $(ARGS)

scale: $(INSTALLED) ## measure an idle call at VOC's size, the index at COCO's (minutes, 2 GB)
	$(BIN)/python -m benchmarks.no_op
	$(BIN)/python -m benchmarks.coco_scale

scale-images: $(INSTALLED) ## measure every stage at 24, 96 and 384 scenes (30 to 80 minutes)
	$(BIN)/python -m benchmarks.image_scale $(ARGS)

scale-store: $(INSTALLED) ## measure the pixel store at 10 million rows (minutes, 17 GB of disk)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.large_store $(ARGS)

bench: $(INSTALLED) ## time hot loops beside the research code's way (BENCH=--write keeps it)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.run $(BENCH)

chain: $(INSTALLED) ## time a run's stages beside the research code's way (RESULTS=...)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.chain --results $(RESULTS) $(ARGS)

# PYTHON=python3.12 takes that one, TORCH=cpu the build without CUDA, WHEELS=FOLDER needs no
# network.
install: $(INSTALLED) ## make .venv at pinned versions (TORCH=cpu, WHEELS=FOLDER, PYTHON=...)

wheels: ## fill a folder with wheels, to install offline (FOLDER=..., TORCH=cpu)
	@$(INSTALL) --wheels

check-install: $(INSTALLED) ## ask the index for a wheel of every version and Python (minutes)
	$(BIN)/python envs/check_install.py $(ARGS)

$(INSTALLED): $(if $(shell $(INSTALL) --state),stale)
	@$(INSTALL)

stale:

clean: ## remove the demo's results
	rm -rf results/demo results/demo-inseparable
