# Every target is a thin line over `python -m pipeline|train|eval COMMAND`; see --help of each.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
ENGINE ?= auto
DATASET ?= $(if $(NUSCENES_ROOT),nuscenes,synthetic)
VFM ?= slic
STORES ?= stores
RUNS ?= runs
JOBS ?= 2
SIZE ?= demo
SEED ?= 0
RECIPE ?= $(if $(filter synthetic,$(DATASET)),seal_small,seal)
SPLIT ?= 1pct
INIT ?= checkpoint
SEEDS ?= 0

# spinning OpenMP threads cost several times the work itself wherever another job shares the cores
export OMP_WAIT_POLICY ?= PASSIVE

PY := $(VENV)/bin/python
STAMP := $(VENV)/.selkie-env-$(ENGINE)
# optional arguments, passed on only where they were given
WHERE = $(if $(ROOT),--root $(ROOT)) $(if $(VERSION),--version $(VERSION))
FLAGS = $(WHERE) $(if $(SCENES),--scenes $(SCENES)) $(if $(LIMIT),--limit $(LIMIT)) \
        $(if $(SHARD),--shard $(SHARD)) $(ARGS)

# what stages two and three take everywhere
PLACES = --dataset $(DATASET) --stores $(STORES) --runs $(RUNS) $(if $(VERSION),--version $(VERSION)) \
         $(if $(filter-out auto,$(ENGINE)),--engine $(ENGINE)) $(if $(DEVICE),--device $(DEVICE))
START = --source $(VFM) --recipe $(RECIPE) --init $(INIT) --seeds $(SEEDS) \
        $(if $(RUN),--run $(RUN)) $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) $(ARGS)

.PHONY: help env doctor synthetic superpixels stage index verify pictures pretrain probe fewshot report \
        demo lint test test-slow bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

env: $(STAMP)  ## make .venv from the lock file, compile MinkowskiEngine once per machine

$(STAMP): requirements.lock environment/setup.sh environment/minkowski.sh
	@bash environment/setup.sh $(VENV) $(PYTHON) $(ENGINE)
	@$(PY) -m pipeline doctor
	@touch $@

doctor: env  ## versions, engine, superpixel sources, BLAS, GPU
	@$(PY) -m pipeline doctor

synthetic: env  ## the made-up city: SIZE=tiny|demo|full SEED=0
	@$(PY) -m pipeline synthesize $(if $(ROOT),--root $(ROOT)) --size $(SIZE) --seed $(SEED)

superpixels: env  ## stage one, complete, for one superpixel source: DATASET=... VFM=...
	@$(PY) -m pipeline run --dataset $(DATASET) --source $(VFM) --stores $(STORES) $(FLAGS)

stage: env  ## one stage again: STAGE=frames|superpixels|projections|segments DATASET=...
	@$(PY) -m pipeline run --stage $(or $(STAGE),$(error STAGE must be frames, superpixels, projections or segments, got none; make stage STAGE=segments)) --dataset $(DATASET) --source $(VFM) --stores $(STORES) $(FLAGS)

index: env  ## build or extend the index of a data set and check it
	@$(PY) -m pipeline index --dataset $(DATASET) --stores $(STORES) $(WHERE)

verify: env  ## rehash every block of a data set's stores
	@$(PY) -m pipeline verify --dataset $(DATASET) --stores $(STORES) $(WHERE) $(ARGS)

pictures: env  ## superpixels, projected points and segments as PNG
	@$(PY) -m pipeline pictures --dataset $(DATASET) --source $(VFM) --stores $(STORES) $(WHERE) $(ARGS)

pretrain: env  ## stage two: RECIPE=seal|slidr|seal_small|slidr_small DATASET=... VFM=...
	@$(PY) -m train pretrain $(PLACES) --source $(VFM) --recipe $(RECIPE) $(if $(RUN),--run $(RUN)) $(ARGS)

probe: env  ## linear probe of a run, or INIT=random; SEEDS=0,1,2
	@$(PY) -m eval probe $(PLACES) $(START)

fewshot: env  ## fine-tune on SPLIT=1pct|5pct|10pct|25pct|half|full
	@$(PY) -m eval fewshot $(PLACES) $(START) --split $(SPLIT)

report: env  ## one HTML page of every result below RUNS
	@$(PY) -m eval report $(PLACES)

demo: env  ## everything once on the synthetic city, ends with the path of report.html
	@$(PY) -m pipeline run --dataset synthetic --version demo --source slic --stores $(STORES)
	@$(PY) -m pipeline pictures --dataset synthetic --version demo --source slic --stores $(STORES)
	@$(PY) -m train pretrain --version demo --stores $(STORES) --runs $(RUNS) --recipe seal_small
	@$(PY) -m eval probe --version demo --stores $(STORES) --runs $(RUNS) --recipe seal_small
	@$(PY) -m eval probe --version demo --stores $(STORES) --runs $(RUNS) --recipe seal_small --init random
	@$(PY) -m eval report --version demo --stores $(STORES) --runs $(RUNS)

bench: env  ## side-by-side timings
	@$(PY) -m benchmarks.engines

lint: env  ## ruff format and ruff check
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .

test: env  ## everything that takes seconds
	@$(PY) -m pytest -m "not slow" -n $(JOBS) --dist worksteal

test-slow: env  ## many kills, full-size networks
	@$(PY) -m pytest -m slow

clean:  ## remove what make made here (not stores, not runs)
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
