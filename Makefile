# Two commands do everything on a fresh machine: make demo, make test.
SHELL := /bin/sh
UV = $(shell tools/uv.sh)
RUN = $(UV) run --no-sync
export DS_ACCELERATOR ?= cpu
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE = 1
# Some machines set it; then each of the many processes of a run would compile torch and transformers anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint unit e2e faults crds dashboards platform cluster tools clean

help: ## show this list
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

setup: ## install everything into .venv (uv too, when it is missing)
	@$(UV) sync --all-packages --all-groups --frozen

demo: setup ## run the whole job on real data: train, evaluate, gate, promote (about ten minutes on two cores)
	@$(RUN) python examples/quickstart/demo.py

# Tests of one file, and all tests that share a control plane, stay on one worker: tests/conftest.py.
PARALLEL = -n auto --maxprocesses 4 --no-loadscope-reorder

test: setup tools lint ## everything that must hold: lint, unit tests, the real control plane
	@$(RUN) pytest tests -m "not faults and not platform" $(PARALLEL)

lint: setup ## ruff, mypy, import-linter, generated files
	@$(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) mypy && $(RUN) lint-imports
	@$(RUN) python -m bessemer_api.crdgen --check crds && $(RUN) python tools/chart.py --check
	@$(RUN) python tools/dashboards.py --check charts/bessemer/dashboards

unit: setup ## tests without a cluster
	@$(RUN) pytest tests -m "not e2e and not platform" $(PARALLEL)

e2e: setup ## tests on a real control plane (its first build takes some minutes)
	@$(RUN) pytest tests -m "e2e and not faults and not platform"

faults: setup tools ## every fault of docs/faults.md on a real control plane (a quarter of an hour)
	@$(RUN) pytest -v tests/faults/test_cases.py

tools: setup ## what tests need beside Python: a browser, Prometheus (Debian), and servers built from Go modules
	@tools/debian.sh install chromium "tests that open the report" chromium
	@tools/debian.sh unpack "prometheus promtool" "tests of metrics and alerts" prometheus
	@$(RUN) python -m tests.support.programs

dashboards: setup ## generate charts/bessemer/dashboards from tools/panels.py
	@$(RUN) python tools/dashboards.py charts/bessemer/dashboards

crds: setup ## generate crds/*.yaml, docs/reference, and the tables of the chart
	@$(RUN) python -m bessemer_api.crdgen crds
	@$(RUN) python tools/chart.py

platform: setup tools ## what takes longer: real Gitea, Kueue and Argo CD, images by buildah, the quickstart on a cluster
	@tools/debian.sh install buildah "tests that build images" buildah
	@tools/debian.sh install debootstrap "tests that build images" debootstrap
	@tools/debian.sh unpack redis-server "tests with Argo CD" redis-server redis-tools libjemalloc2 liblzf1
	@$(RUN) python -m tests.support.programs platform
	@$(RUN) pytest -v tests -m platform

cluster: setup ## a playground: a real control plane with the operator, until Ctrl-C
	@$(RUN) python -m tests.support.playground

clean: ## remove what the demo and the tests made
	rm -rf .bessemer examples/*/.bessemer build .pytest_cache .mypy_cache .ruff_cache
