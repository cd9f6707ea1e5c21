# A newcomer needs two commands: `make run` and `make test`. `make help` lists them all.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHONS := python3.11 python3.12 python3.13 python3

.PHONY: help run test up down status deploy automations check soak format lock clean

help:  ## List these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY)  ## Train, evaluate and explain: on MNIST, or on digits if it cannot be downloaded
	$(BIN)/filterscope run --data.source auto --train.recipe fast

test: $(READY)  ## Run the fast tests
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup -m "not slow and not service"

up: $(READY)  ## Start server, worker and report server, with the schedules; see deployments/README.md
	@$(BIN)/python -m deployments.operate up $(PARTS)

down: $(READY)  ## Stop them, and the runs in progress
	@$(BIN)/python -m deployments.operate down $(PARTS)

status: $(READY)  ## Show what is running, where, and its logs; fails if anything is down
	@$(BIN)/python -m deployments.operate status $(PARTS)

deploy: $(READY)  ## Register deployments/prefect.yaml with the running server
	@$(BIN)/python -m deployments.operate deploy

automations: $(READY)  ## Register the notifications and the webhook address with the server
	@$(BIN)/python -m deployments.operate automations

check: $(READY)  ## Check format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

soak: $(READY)  ## Kill real MNIST runs, searches, servers and workers many times; takes over an hour
	FILTERSCOPE_KILLS=7 FILTERSCOPE_RUNS=10 $(BIN)/python -m pytest -q -m slow tests/soak \
	  -o log_cli=true -o log_cli_level=INFO
	FILTERSCOPE_IMAGES=1000000 $(BIN)/python -m pytest -q -m slow tests/flows/test_shards_slow.py
	FILTERSCOPE_OUTAGES=5 $(BIN)/python -m pytest -q tests/services/test_outages.py \
	  -o log_cli=true -o log_cli_level=INFO

format: $(READY)  ## Format, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## Resolve all dependencies again; needs uv
	uv pip compile --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	  --no-emit-index-url --no-header --extra dev --upgrade pyproject.toml -o requirements.lock

clean:  ## Remove the environment and the caches, not the artifacts
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): requirements.lock pyproject.toml
	@python=""; for name in $(PYTHONS); do \
	  if $$name -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	    >/dev/null 2>&1; then python=$$name; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11, 3.12 or 3.13 with venv is needed (on Debian: apt install python3-venv)" >&2; \
	  exit 1; fi; \
	echo "creating $(VENV) with $$($$python --version)"; $$python -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
