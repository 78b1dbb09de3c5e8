# One command per stage; every target sets up .venv by itself. `make help` lists them.
#
# Torch: pip takes the build that the platform's index offers (CUDA on Linux with the default index). For a CPU build,
# or a certain CUDA version, say where from:  make demo TORCH_ARGS="--index-url <index of the wanted build>"

PYTHON     ?= python3
TORCH_ARGS ?=
VENV       := .venv
PY         := $(VENV)/bin/python
READY      := $(VENV)/.ready

# extract-flow
DATASET ?= kinetics
ROOT    ?= data/videos/$(DATASET)
# The paper's data sets get the paper's network, whose weights must be fetched once; anything else runs at once.
FLOW    ?= $(if $(filter kinetics ytvos,$(DATASET)),sea-raft-m,dis)
WEIGHTS ?=
PASSES  ?= 8
SHARDS  ?= data/shards/$(DATASET)
EXTRACT ?=
# local or ray (docs/many-machines.md); PART=1/8: the first of eight parts, which may run at the same time
RUNNER  ?= local
PART    ?=
# plan: what only it takes, such as PLAN='--gpus 8 --gpu-pairs-per-s 2000'
PLAN    ?=
# train, probe
# The settings named after the data set; real.toml for data of your own.
CONFIG  ?= $(firstword $(wildcard configs/$(DATASET).toml) configs/real.toml)
RUN     ?= runs/$(DATASET)
TRAIN   ?=
GPUS    ?= 1
RANKS    = $(if $(filter-out 1,$(GPUS)),-m torch.distributed.run --standalone --nproc-per-node=$(GPUS))
DAVIS   ?= data/davis
PROBE   ?=
BENCH   ?=
# sweep
SWEEP   ?= configs/sweeps/demo.toml
OUT     ?= runs/sweeps/$(basename $(notdir $(SWEEP)))
JOBS    ?=
BASE    ?=
# demo
DEMO    ?= runs/demo$(if $(filter-out 0,$(SEED)),-$(SEED))
SEED    ?= 0

# Without any ...=DIR, probe-all takes the demo's run and the generator's own data.
PROBED_DATA = $(filter-out file,$(origin DAVIS)) $(filter --davis --depth --images --tracks --segmentation --shards,$(PROBE))
PROBED_RUN  = $(if $(strip $(PROBED_DATA)),$(RUN),$(if $(filter file,$(origin RUN)),$(DEMO),$(RUN)))

# The demo's sweep is trained and judged on the demo's data unless others are named.
DEMO_SWEEP   := $(filter configs/sweeps/demo.toml,$(SWEEP))
SWEEP_SHARDS  = $(if $(and $(DEMO_SWEEP),$(filter file,$(origin SHARDS))),data/shards/demo-$(SEED),$(SHARDS))
SWEEP_DAVIS   = $(if $(filter file,$(origin DAVIS)),$(if $(DEMO_SWEEP),data/demo-$(SEED)/davis),$(DAVIS))
# What rows are judged on: DAVIS=dir, or PROBE='--depth dir' where the sweep's probe is another.
SWEEP_DATA    = $(strip $(if $(SWEEP_DAVIS),--davis $(SWEEP_DAVIS)) $(PROBE))
# SHARDS_RAFT=dir names the set that rows with shards = "RAFT" want.
SWEEP_SETS    = $(foreach each,$(filter SHARDS_%,$(.VARIABLES)),--set $(patsubst SHARDS_%,%,$(each))=$($(each)))

.PHONY: help install demo demo-data test lint plan extract-flow nothing-empty train sweep probe probe-data probed-model probe-all report verify bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo            synthetic videos -> flow -> training -> probe -> $(DEMO)/report/index.html (minutes, CPU)"
	@echo "make install         $(VENV) with everything that is needed, and nothing else"
	@echo "make test            the test suite [JOBS=2: so many files at a time]"
	@echo "make lint            ruff and mypy"
	@echo "make plan            as extract-flow, with [PLAN='--gpus n ...']: what it would take, measured on a few videos; afterwards, what it took"
	@echo "make extract-flow    DATASET=folder|kinetics|ytvos|davis|list|synthetic ROOT=dir [FLOW=...] [WEIGHTS=file] [PASSES=8] [SHARDS=dir] [RUNNER=ray] [PART=1/8] [EXTRACT='...']"
	@echo "make verify          SHARDS=dir: check every byte of a shard set"
	@echo "make train           SHARDS='dir ...' RUN=dir [DATASET=kinetics|ytvos|...: configs/<it>.toml, else real.toml; or CONFIG=file]"
	@echo "                     [GPUS=n] [TRAIN='key=value ...']; continues a run that was stopped. See docs/training.md"
	@echo "make sweep           SWEEP=file.toml [SHARDS=dir] [SHARDS_NAME=dir ...] [DAVIS=dir] [JOBS=n] [OUT=dir] [BASE=config] [TRAIN='key=value ...']:"
	@echo "                     train every row of a sweep, judge it where DAVIS is given (or PROBE='--depth dir', ...); by default the"
	@echo "                     demo's. See docs/sweeps.md"
	@echo "make probe           RUN=dir DAVIS=dir [PROBE='...']: the VOS linear probe"
	@echo "make probe-all       every probe, on the demo's model and the generator's own data (minutes, CPU, no data set)"
	@echo "make probe-all       RUN=dir DAVIS=dir [PROBE='--depth dir ...']: every probe that has data"
	@echo "make report          RUN=dir: build the report's pages again"
	@echo "make bench           BENCH='--videos DIR --davis DIR --shards DIR': measure, append to bench/results.csv"
	@echo "make clean           remove caches and $(VENV); data/ and runs/ stay"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet $(TORCH_ARGS) --constraint constraints.txt torch
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

install: $(READY)

demo-data: $(READY)
	$(PY) -m pipeline synth --out data/demo-$(SEED) --seed $(SEED) --videos 64 --davis-sequences 6
	$(PY) -m pipeline extract --dataset synthetic --root data/demo-$(SEED)/videos --out data/shards/demo-$(SEED) --flow dis --passes 4 --seed $(SEED) --chunk-videos 32

demo: demo-data
	$(PY) -m trainer train --config configs/demo.toml --shards data/shards/demo-$(SEED) --out $(DEMO) $(if $(wildcard $(DEMO)/config.toml),--resume) train.seed=$(SEED)
	$(PY) -m probes vos --model $(DEMO)/flowfeat.safetensors --davis data/demo-$(SEED)/davis --out $(DEMO)/report --height 160 --seed $(SEED)

# Many tests wait for processes that they start, so JOBS=2 is quicker on two cores already (whole files: their fixtures are made once).
test: $(READY)
	$(if $(JOBS),OMP_NUM_THREADS=1 )$(PY) -m pytest $(if $(JOBS),-n $(JOBS) --dist loadfile --no-loadscope-reorder)

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# An empty one would leave an option without its value, which then takes the next option for it.
EMPTY = $(firstword $(foreach each,DATASET ROOT SHARDS FLOW PASSES,$(if $(strip $($(each))),,$(each))))

nothing-empty:
	@test -z "$(EMPTY)" || { echo "Error: $(EMPTY) is empty: give it a value ($(EMPTY)=...), or leave it out for its default" >&2; exit 1; }

plan: nothing-empty $(READY)
	$(PY) -m pipeline plan --dataset $(DATASET) --root $(ROOT) --out $(SHARDS) --flow $(FLOW) $(if $(WEIGHTS),--weights $(WEIGHTS)) --passes $(PASSES) $(EXTRACT) $(PLAN)

extract-flow: nothing-empty $(READY)
	$(PY) -m pipeline extract --dataset $(DATASET) --root $(ROOT) --out $(SHARDS) --flow $(FLOW) $(if $(WEIGHTS),--weights $(WEIGHTS)) --passes $(PASSES)$(if $(filter-out local,$(RUNNER)), --runner $(RUNNER))$(if $(PART), --part $(PART)) $(EXTRACT)

verify: $(READY)
	$(PY) -m pipeline verify $(SHARDS)

train: $(READY)
	$(PY) $(RANKS) -m trainer train --config $(CONFIG) $(SHARDS:%=--shards %) --out $(RUN) $(if $(wildcard $(RUN)/config.toml),--resume) $(TRAIN)

# Exit status 3: all rows were tried and some failed; the others are judged all the same.
sweep: $(READY) $(if $(and $(DEMO_SWEEP),$(filter file,$(origin SHARDS))),demo-data)
	$(PY) -m probes check-sweep $(SWEEP) $(SWEEP_DATA) $(TRAIN)
	@$(PY) -m trainer sweep $(SWEEP) --shards $(SWEEP_SHARDS) $(SWEEP_SETS) --out $(OUT) $(if $(JOBS),--jobs $(JOBS)) $(if $(BASE),--base $(BASE)) $(TRAIN); status=$$?; \
	if [ $$status -ne 0 ] && [ $$status -ne 3 ]; then exit $$status; fi; \
	if [ -n "$(SWEEP_DATA)" ]; then $(PY) -m probes sweep --sweep $(OUT) $(SWEEP_DATA) $(if $(JOBS),--jobs $(JOBS)) || exit $$?; \
	else echo "trained; with DAVIS=dir (or PROBE='--depth dir' and so on) the rows are judged"; fi; exit $$status

probe: $(READY)
	$(PY) -m probes vos --model $(RUN)/flowfeat.safetensors --davis $(DAVIS) --out $(RUN)/report $(PROBE)

probe-data: $(READY)
	$(PY) -m pipeline synth --out data/demo-$(SEED) --seed $(SEED) --videos 0 --davis-sequences 6 --stills 72
	$(PY) -m pipeline extract --dataset davis --root data/demo-$(SEED)/davis --out data/demo-$(SEED)/shards --flow truth --passes 4 --seed $(SEED) --image-size 224 --flow-size 112

probed-model:
	@test -s $(PROBED_RUN)/flowfeat.safetensors || { echo "Error: no model $(PROBED_RUN)/flowfeat.safetensors: run make demo first, or name a run (RUN=dir)" >&2; exit 1; }

probe-all: $(READY) probed-model $(if $(strip $(PROBED_DATA)),,probe-data)
	$(PY) -m probes all --model $(PROBED_RUN)/flowfeat.safetensors --run $(PROBED_RUN) --out $(PROBED_RUN)/report \
	  $(if $(strip $(PROBED_DATA)),$(if $(filter-out file,$(origin DAVIS)),--davis $(DAVIS)),--embedded data/demo-$(SEED) --seed $(SEED) --jobs $(or $(JOBS),2)) $(PROBE)

report: $(READY)
	$(PY) -m probes report --out $(RUN)/report

bench: $(READY)
	$(PY) bench/all.py $(BENCH)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
