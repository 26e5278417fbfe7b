# `make` prints the targets. Everything runs from .venv, made on first use exactly as locked.
HEADRACE := .venv/bin/headrace
READY := .venv/.ready
PACKAGES := schemas gateways streams ledger_writer deploy loadtest

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## run real payments, kill processes meanwhile, prove nothing was lost or doubled
	@$(HEADRACE) demo

test: $(READY) ## run every test, on a real Kafka and a real Postgres
	@.venv/bin/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

up: $(READY) ## start the stack and leave it running
	@$(HEADRACE) up

down: $(READY) ## stop it
	@$(HEADRACE) down

status: $(READY) ## show roles, pids, restarts and consumer lag
	@$(HEADRACE) status

verify: $(READY) ## prove on the running stack that log, ledger and lake agree
	@$(HEADRACE) verify

bench-ledger: $(READY) ## measure the ledger writer (N, BATCH, SECONDS, RATE, AGAINST=1)
	@$(HEADRACE) bench ledger

bench-streams: $(READY) ## measure the stream engine
	@$(HEADRACE) bench streams

bench-state: $(READY) ## measure what remembered keys cost, and bringing a moved partition back
	@$(HEADRACE) bench state

bench-gateway: $(READY) ## measure the gateway
	@$(HEADRACE) bench gateway

bench-lake: $(READY) ## measure landing in the lake
	@$(HEADRACE) bench lake

bench-e2e: $(READY) ## measure payments end to end
	@$(HEADRACE) bench e2e

locust: $(READY) ## drive the running stack with Locust (LOCUST_ARGS)
	@$(HEADRACE) locust $(LOCUST_ARGS)

drills: $(READY) ## run every fault drill on real processes (SEED repeats one)
	@$(HEADRACE) drill

lint: $(READY) ## ruff and mypy
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy $(PACKAGES)

lock: $(READY) ## resolve the dependencies of pyproject.toml into requirements.lock again
	@.venv/bin/python -m pip install --quiet --require-hashes -r deploy/bootstrap.lock
	@.venv/bin/uv pip compile pyproject.toml --universal --generate-hashes --no-header \
		--no-emit-index-url --upgrade --quiet --output-file requirements.lock

$(READY): requirements.lock deploy/bootstrap.lock deploy/setup.sh pyproject.toml schemas/fast.pyx schemas/fast_runtime.pxi \
		schemas/fast_records.pxi ledger_writer/fast.pyx ledger_writer/fast_fields.pxi ledger_writer/fast_stamp.pxi streams/engine/fast.pyx
	@deploy/setup.sh

.PHONY: help demo test up down status verify bench-ledger bench-streams bench-state bench-gateway bench-lake \
	bench-e2e locust drills lint lock
