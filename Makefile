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
SEEDS ?= 1
INITS ?= random
SPLITS ?= lp,1pct

# spinning OpenMP threads cost several times the work itself wherever another job shares the cores
export OMP_WAIT_POLICY ?= PASSIVE

PY := $(VENV)/bin/python
# the two dashes keep torchrun from taking --run for an abbreviation of its own --run-path
TRAIN = $(if $(PROCESSES),$(VENV)/bin/torchrun --standalone --nproc-per-node $(PROCESSES) -m -- train,$(PY) -m train)
STAMP := $(VENV)/.selkie-env-$(ENGINE)
# optional arguments, passed on only where they were given
WHERE = $(if $(ROOT),--root $(ROOT)) $(if $(VERSION),--version $(VERSION))
FLAGS = $(WHERE) $(if $(SCENES),--scenes $(SCENES)) $(if $(LIMIT),--limit $(LIMIT)) \
        $(if $(SHARD),--shard $(SHARD)) $(RUNNING) $(ARGS)
RUNNING = $(if $(SCHEDULER),--scheduler $(SCHEDULER)) $(if $(DEVICE),--device $(DEVICE))

# SEEDS=3 is seeds 0, 1 and 2; a list is taken as it is
COMMA := ,
SEED_LIST = $(if $(findstring $(COMMA),$(SEEDS)),$(SEEDS),$(or $(shell seq -s, 0 $$(($(SEEDS) - 1))),0))

# what stages two and three take everywhere
PLACES = --dataset $(DATASET) --stores $(STORES) --runs $(RUNS) $(if $(VERSION),--version $(VERSION)) \
         $(if $(filter-out auto,$(ENGINE)),--engine $(ENGINE)) $(if $(DEVICE),--device $(DEVICE))
START = --source $(VFM) --recipe $(RECIPE) --init $(INIT) --seeds $(SEED_LIST) \
        $(if $(RUN),--run $(RUN)) $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) $(ARGS)
# which measured network: the probe's on all labels, unless SPLIT or PROTOCOL say another
MEASURED = --source $(VFM) --recipe $(RECIPE) $(if $(RUN),--run $(RUN)) \
           $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) --protocol $(or $(PROTOCOL),linear) \
           --split $(if $(filter few_shot semi_supervised,$(PROTOCOL)),$(SPLIT),$(if $(filter command line,$(origin SPLIT)),$(SPLIT),train))

.PHONY: help env doctor synthetic superpixels stage index check verify inspect import-masks export-masks pictures \
        pretrain sbatch show convert probe fewshot semi table report robustness compare predict view \
        demo lint test test-slow test-gpu bench bench-gpu clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

env: $(STAMP)  ## make .venv from the lock file, compile MinkowskiEngine once per machine (for its GPUs)

$(STAMP): requirements.lock $(wildcard environment/*)
	@bash environment/setup.sh $(VENV) $(PYTHON) $(ENGINE) >&2
	@$(PY) -m pipeline doctor >&2
	@touch $@

doctor: env  ## versions, engine, superpixel sources, BLAS, GPU
	@$(PY) -m pipeline doctor

synthetic: env  ## the made-up city: SIZE=tiny|demo|full SEED=0 LIDAR=beams32|beams64
	@$(PY) -m pipeline synthesize $(if $(ROOT),--root $(ROOT)) --size $(SIZE) --seed $(SEED) $(if $(LIDAR),--lidar $(LIDAR))

superpixels: env  ## stage one, complete: DATASET=... VFM=... SCHEDULER=serial|local:4|tcp://...|slurm:file.yaml
	@$(PY) -m pipeline run --dataset $(DATASET) --source $(VFM) --stores $(STORES) $(FLAGS)

stage: env  ## one stage alone: STAGE=frames|superpixels|projections|segments DATASET=...
	@$(PY) -m pipeline run --stage $(or $(STAGE),$(error STAGE must be frames, superpixels, projections or segments, got none; make stage STAGE=segments)) --dataset $(DATASET) --source $(VFM) --stores $(STORES) $(FLAGS)

index: env  ## build or extend the index of a data set and check it
	@$(PY) -m pipeline index --dataset $(DATASET) --stores $(STORES) $(WHERE)

check: env  ## the same with pictures: points over images, labels from above
	@$(PY) -m pipeline check $(DATASET) --stores $(STORES) $(WHERE) $(ARGS)

verify: env  ## rehash every block of a data set's stores
	@$(PY) -m pipeline verify --dataset $(DATASET) --stores $(STORES) $(WHERE) $(ARGS)

inspect: env  ## schema, provenance and sizes of a store: STORE=stores/.../frames.zarr
	@$(PY) -m pipeline inspect $(or $(STORE),$(error STORE must be a store, got none; make inspect STORE=stores/.../frames.zarr))

import-masks: env  ## superpixels from PNG files <camera token>.png: FOLDER=... [LABEL=...]
	@$(PY) -m pipeline import-masks --dataset $(DATASET) --stores $(STORES) --folder $(or $(FOLDER),$(error FOLDER must hold PNG files, got none; make import-masks FOLDER=...)) $(if $(LABEL),--label $(LABEL)) $(WHERE) $(RUNNING) $(ARGS)

export-masks: env  ## superpixels of VFM as PNG files: OUT=... [BITS=8|16]
	@$(PY) -m pipeline export-masks --dataset $(DATASET) --source $(VFM) --stores $(STORES) --out $(or $(OUT),$(error OUT must be a folder, got none; make export-masks OUT=...)) $(if $(BITS),--bits $(BITS)) $(WHERE) $(ARGS)

pictures: env  ## superpixels, projected points and segments as PNG
	@$(PY) -m pipeline pictures --dataset $(DATASET) --source $(VFM) --stores $(STORES) $(WHERE) $(ARGS)

pretrain: env  ## stage two: RECIPE=seal|slidr|ppkt|st_slidr|seal_dinov2|scalr|*_small DATASET=...[,...] VFM=... PROCESSES=GPUS
	@$(TRAIN) pretrain $(PLACES) --source $(VFM) --recipe $(RECIPE) $(if $(RUN),--run $(RUN)) $(ARGS)

sbatch: env  ## print a script for SLURM: RECIPE=... DATASET=... VFM=... ARGS='--nodes 2 --gpus 4 --batch-per-gpu 4'
	@$(PY) -m train sbatch --dataset $(DATASET) $(if $(VERSION),--version $(VERSION)) --source $(VFM) --recipe $(RECIPE) --stores $(STORES) --runs $(RUNS) \
	  $(if $(RUN),--run $(RUN)) $(if $(filter-out auto,$(ENGINE)),--engine $(ENGINE)) $(ARGS)

show: env  ## the complete config of RECIPE, as --set takes it
	@$(PY) -m train show $(RECIPE) $(ARGS)

convert: env  ## weights into another file: FROM=checkpoint.pt TO=x.safetensors or TO=x.pt (SLidR's layout)
	@$(PY) -m train convert $(FROM) $(TO)

probe: env  ## linear probe of a run, or INIT=random, or CHECKPOINT=file RUN=name; SEEDS=3
	@$(PY) -m eval probe $(PLACES) $(START)

fewshot: env  ## fine-tune on SPLIT=1pct|5pct|10pct|25pct|half|full
	@$(PY) -m eval fewshot $(PLACES) $(START) --split $(SPLIT)

semi: env  ## fine-tune on SPLIT with all other scans unlabeled (mean teacher, LaserMix)
	@$(PY) -m eval semi $(PLACES) $(START) --split $(SPLIT)

table: env  ## DATASET=a,b INITS=random,RUN,FILE SPLITS=lp,1pct,..,full SEEDS=3: what is missing, and the table
	@$(PY) -m eval table $(PLACES) --recipe $(RECIPE) --inits $(INITS) --splits $(SPLITS) \
		--seeds $(SEED_LIST) $(if $(SHARD),--shard $(SHARD)) $(ARGS)
robustness: env  ## a probed network on clean + 24 corrupted versions: PROTOCOL=linear SPLIT=train LIMIT=...
	@$(PY) -m eval robustness $(PLACES) $(MEASURED) $(if $(LIMIT),--limit $(LIMIT)) $(ARGS)

compare: env  ## every result beside the published numbers
	@$(PY) -m eval compare $(PLACES)

predict: env  ## classes of scans: CHECKPOINT=run/results/x.pt INPUT=scan.bin|folder [OUT=... POSES=... NEIGHBORS=2]
	@$(PY) -m eval predict --checkpoint $(or $(CHECKPOINT),$(error CHECKPOINT must be a .pt file in results/ of a run, got none)) \
	  --input $(or $(INPUT),$(error INPUT must be a scan or a folder of scans, got none)) $(if $(OUT),--out $(OUT)) \
	  $(if $(POSES),--poses $(POSES)) $(if $(NEIGHBORS),--neighbors $(NEIGHBORS)) \
	  $(if $(filter-out auto,$(ENGINE)),--engine $(ENGINE)) $(if $(DEVICE),--device $(DEVICE)) $(ARGS)

view: env  ## predictions as PNG, PLY and rerun recording, no display: FRAMES=4
	@$(PY) -m eval view $(PLACES) $(MEASURED) $(if $(FRAMES),--frames $(FRAMES)) $(if $(OUT),--out $(OUT)) $(ARGS)

report: env  ## one HTML page of every result below RUNS
	@$(PY) -m eval report $(PLACES) $(ARGS)

demo: env  ## everything once on the synthetic city, ends with the path of report.html
	@$(PY) -m pipeline run --dataset synthetic --version demo --source slic --stores $(STORES)
	@$(PY) -m pipeline pictures --dataset synthetic --version demo --source slic --stores $(STORES)
	@$(PY) -m train pretrain --version demo --stores $(STORES) --runs $(RUNS) --recipe seal_small
	@$(PY) -m eval probe --version demo --stores $(STORES) --runs $(RUNS) --recipe seal_small
	@$(PY) -m eval probe --version demo --stores $(STORES) --runs $(RUNS) --recipe seal_small --init random
	@$(PY) -m eval report --version demo --stores $(STORES) --runs $(RUNS)

bench: env  ## side-by-side timings
	@$(PY) -m benchmarks.engines
	@$(PY) -m benchmarks.superpixels
	@$(PY) -m benchmarks.projection
	@$(PY) -m benchmarks.segments
	@$(PY) -m benchmarks.nuscenes_index
	@$(PY) -m benchmarks.frames
	@$(PY) -m benchmarks.cluster
	@$(PY) -m benchmarks.panoptic
	@$(PY) -m benchmarks.loader
	@$(PY) -m benchmarks.sam
	@$(PY) -m benchmarks.sam --quality

bench-gpu: env  ## the same on a GPU: engines, the full Seal step, SAM (SAM_CHECKPOINT=...)
	@$(PY) -m benchmarks.gpu_engines
	@$(PY) -m benchmarks.gpu_seal
	@$(PY) -m benchmarks.gpu_sam

lint: env  ## ruff format and ruff check
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .

test: env  ## everything that takes seconds
	@$(PY) -m pytest -m "not slow and not gpu" -n $(JOBS) --dist worksteal

test-slow: env  ## many kills, full-size networks
	@$(PY) -m pytest -m slow

test-gpu: env  ## on a GPU; skips with a reason without one (SELKIE_TEST_DEVICE=cpu runs the same on the CPU)
	@$(PY) -m pytest -m gpu -rs

clean:  ## remove what make made here (not stores, not runs, no conda environment)
	rm -rf $(if $(wildcard $(VENV)/pyvenv.cfg),$(VENV)) .pytest_cache .ruff_cache .hypothesis
