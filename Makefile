# Everything a contributor does. `make` alone lists it.
#
# The lists below are the truth about the tiers: a test belongs to the first tier whose markers it
# carries, and to the unit tier when it carries none.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
RESULTS := build/test-results

# The virtual environment follows the lock: it is brought up to date when that changes.
LOCK_KEY := $(shell sha256sum <requirements/dev.txt | cut -c1-12)
STAMP := $(VENV)/.locked-$(LOCK_KEY)
# Any Python from 3.11 on. Shims that answer but cannot run are passed over.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

export PYTHONPATH := operator:dev:components/onnx-server:components/fetcher:components/collector
CLUSTER ?= default
MOORING_DEV := $(BIN)/python -m mooring_dev

SOURCES := operator/mooring dev/mooring_dev components tests bench
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--python-version 3.11 --custom-compile-command "make lock"

UNIT := not apiserver and not process and not envoy and not s3 and not stores and not helm and not faults and not prometheus and not e2e and not slow
APISERVER := (apiserver or process or envoy or s3 or stores or helm or faults or prometheus) and not e2e and not slow
E2E := e2e and not slow
SLOW := slow
# Arguments for pytest: make test-unit PYTEST_ARGS="-k revision"
PYTEST_ARGS ?=
# Hypothesis' own profile "ci": the same examples in every run, no deadline on a busy machine. The
# campaigns of test-slow take new examples each time.
PYTEST := $(BIN)/python -m pytest -q
# Tests are rewritten as they are imported: kept, that is done once and not by each worker and tier.
export PYTHONDONTWRITEBYTECODE :=
# Tests of real servers wait more than they compute. A file's tests stay together, with the servers
# that they share; each worker has a control plane of its own. Folders with long waits come first.
SERVERS := --dist=loadfile --no-loadscope-reorder
# How many clusters make test-e2e starts, each for a worker of its own: what a rollout does there is
# mostly to wait. One takes 1.5 GiB of memory. With 1 there is no worker, as in test-slow.
E2E_CLUSTERS ?= 2
STEADY := --hypothesis-profile=ci
# Repetitions and campaigns last longer than what ends a worker that hangs (pyproject.toml).
LONG := -o faulthandler_timeout=4000
# How many cases make faults-full tries in all, and which single one make fault repeats.
FAULT_RUNS ?= 1000
export CASE
# pytest's 5 says that no test was selected; the closing count shows that, and is no failure here.
RUN_TIER = mkdir -p $(RESULTS) && rm -f $(RESULTS)/$(1).xml && \
	{ $(PYTEST) --junitxml=$(RESULTS)/$(1).xml $(2) $(PYTEST_ARGS) || [ $$? -eq 5 ]; }

##@ Setting up

.PHONY: help
help: ## List what there is to do
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(STAMP) ## Make the development environment in .venv (from the hashed lock)

$(STAMP):
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or later is needed, and none is on PATH." >&2; exit 1; }
	@mkdir -p $(VENV); exec 9>$(VENV)/.lock; flock 9; [ ! -e $@ ] || exit 0; \
	echo "Preparing $(VENV) with $$($(PYTHON) --version) ..."; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing python3-venv, which Debian keeps apart from Python ..."; \
			{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y python3-venv; } \
				>$(VENV)/.apt.log 2>&1 || { tail -n 5 $(VENV)/.apt.log >&2; exit 1; }; \
			$(PYTHON) -m venv $(VENV); \
		else \
			echo "$(PYTHON) -m venv failed. On Debian: apt-get install python3-venv" >&2; exit 1; \
		fi; }; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		--only-binary=:all: -r requirements/dev.txt; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --editable .; \
	rm -f $(VENV)/.locked-*; touch $@; \
	echo "$(VENV) is ready: $$($(BIN)/python -m pip list 2>/dev/null | tail -n +3 | wc -l) packages."

.PHONY: lock
lock: $(STAMP) ## Resolve the dependencies anew into the hashed locks (LOCK_ARGS=--upgrade)
	@$(UV_COMPILE) $(LOCK_ARGS) requirements/dev.in --output-file requirements/dev.txt
	@for part in operator $(patsubst %/requirements.in,%,$(wildcard components/*/requirements.in dev/*/requirements.in) examples/retrain-with-job); do \
		$(UV_COMPILE) --constraints requirements/dev.txt $$part/requirements.in \
			--output-file $$part/requirements.txt; \
	done
	@! grep -n '://' requirements/dev.txt operator/requirements.txt components/*/requirements.txt dev/*/requirements.txt \
		examples/retrain-with-job/requirements.txt

##@ Checking

.PHONY: lint
lint: lint-style lint-types lint-architecture lint-generated ## All static checks

.PHONY: lint-style
lint-style: $(STAMP) ## ruff: rules and format
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { $(BIN)/ruff format --check . ; exit 1; }

.PHONY: lint-types
lint-types: $(STAMP) ## mypy --strict
	@$(BIN)/mypy --no-error-summary $(wildcard $(SOURCES))

.PHONY: lint-architecture
lint-architecture: $(STAMP) ## import-linter: which part may import which
	@$(BIN)/lint-imports --no-logo &>$(VENV)/.imports.log || { cat $(VENV)/.imports.log; exit 1; }

.PHONY: lint-generated
lint-generated: $(STAMP) ## Generated files (CRDs, chart, manifests, locks) are up to date
	@$(BIN)/python -m mooring.api.crd --check
	@$(BIN)/python -m mooring.api.reference --check
	@$(BIN)/python dev/copy_crds.py --check
	@$(BIN)/python dev/generate_chart_reference.py --check
	@$(BIN)/python dev/generate_rollout_table.py --check
	@$(BIN)/python dev/check_locks.py

.PHONY: format
format: $(STAMP) ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

##@ Testing

.PHONY: test
test: $(STAMP) ## Static checks and every tier in order; closes with a line of counts
	@status=0; $(MAKE) every-tier || status=1; \
	$(BIN)/python dev/count_results.py $(RESULTS) unit apiserver e2e || status=1; exit $$status

# Each tier runs even when one before it failed, so that one run shows everything.
.PHONY: every-tier
every-tier:
	@rm -rf $(RESULTS); failed=""; \
	for target in lint test-unit test-apiserver test-e2e; do \
		echo "== make $$target"; SECONDS=0; $(MAKE) --keep-going $$target || failed="$$failed $$target"; \
		echo "== make $$target took $$SECONDS s"; \
	done; \
	[ -z "$$failed" ] || { echo "Failed:$$failed" >&2; exit 1; }

.PHONY: test-unit
test-unit: $(STAMP) ## Everything that needs no server (a minute or so)
	@$(call RUN_TIER,unit,$(STEADY) -n 2 --dist=worksteal -m "$(UNIT)")

.PHONY: test-apiserver
test-apiserver: $(STAMP) ## Against a real kube-apiserver and etcd, S3 server and Prometheus, with faults
	@$(MOORING_DEV) binaries kubernetes s3 helm prometheus gcs registry >/dev/null
	@$(call RUN_TIER,apiserver,$(STEADY) -n 3 $(SERVERS) -m "$(APISERVER)")

.PHONY: test-faults
test-faults: $(STAMP) ## Only the fault runs of test-apiserver: a seeded slice (below 3 minutes)
	@$(MOORING_DEV) binaries kubernetes >/dev/null
	@$(PYTEST) $(STEADY) tests/faults -m faults $(PYTEST_ARGS)

.PHONY: faults-full
faults-full: $(STAMP) ## The campaign: goes on until FAULT_RUNS cases are tried; table to bench/results
	@$(MOORING_DEV) binaries kubernetes >/dev/null
	@$(BIN)/python -m tests.faults.campaign --runs $(FAULT_RUNS) $(FAULT_ARGS)

.PHONY: fault
fault: $(STAMP) ## One case of the campaign again: CASE='story/class@verb:Kind name:occurrence'
	@$(MOORING_DEV) binaries kubernetes >/dev/null
	@$(BIN)/python -m tests.faults.campaign --case "$$CASE"

.PHONY: test-e2e
test-e2e: $(STAMP) ## Against real clusters with the chart installed (E2E_CLUSTERS=2)
	@$(call RUN_TIER,e2e,$(STEADY) $(if $(filter-out 1,$(E2E_CLUSTERS)),-n $(E2E_CLUSTERS) $(SERVERS)) -m "$(E2E)")

.PHONY: test-evidence
test-evidence: $(STAMP) ## Ten bad candidates of each kind and ten good ones, on a real Prometheus
	@$(PYTEST) $(LONG) -s tests/e2e/test_evidence.py -m slow $(PYTEST_ARGS)

.PHONY: test-full
test-full: $(STAMP) ## make test, then the repetitions, campaigns and benchmarks
	@status=0; $(MAKE) test || status=1; \
	$(MAKE) test-slow || status=1; \
	$(BIN)/python dev/count_results.py $(RESULTS) unit apiserver e2e slow || status=1; exit $$status

.PHONY: test-slow
test-slow: $(STAMP) ## Only the tests marked slow
	@$(call RUN_TIER,slow,$(LONG) -m "$(SLOW)")

##@ Running

.PHONY: demo
demo: $(STAMP) ## Cluster, operator, a good canary promoted on evidence, a bad one rolled back
	@$(MOORING_DEV) demo

.PHONY: story
story: $(STAMP) ## The demo, then data that moves: drift found, a model made anew, promoted
	@$(MOORING_DEV) story

.PHONY: cluster-up
cluster-up: $(STAMP) ## Start a real cluster on this machine (CLUSTER=name)
	@$(MOORING_DEV) cluster up --name $(CLUSTER)

.PHONY: cluster-down
cluster-down: $(STAMP) ## Stop it and remove what it made
	@$(MOORING_DEV) cluster down --name $(CLUSTER)

.PHONY: images
images: $(STAMP) ## Build the images from the Dockerfiles a user builds with Docker
	@$(MOORING_DEV) images build

##@ Generating

.PHONY: crds
crds: $(STAMP) ## Generate crds/ and their reference from the models, and the installers' copies
	@$(BIN)/python -m mooring.api.crd
	@$(BIN)/python -m mooring.api.reference
	@$(BIN)/python dev/copy_crds.py

.PHONY: manifests
manifests: $(STAMP) ## Render manifests/ from the chart
	@$(BIN)/python dev/generate_manifests.py

.PHONY: docs
docs: $(STAMP) ## Generate the documentation's reference parts
	@$(BIN)/python -m mooring.api.reference
	@$(BIN)/python dev/generate_chart_reference.py
	@$(BIN)/python dev/generate_rollout_table.py

.PHONY: clean
clean: ## Remove what was built here (not the cluster, not the binaries' cache)
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
