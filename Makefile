# A newcomer's commands. Each makes what it needs: only Python >= 3.11, make and git have to be there.
#   make demo       the whole pipeline on phantoms: the picture grid, the headline table, the UI line
#   make test       the quick tests
#   make test-doors the tests that start every entry point as a process, through both doors, and
#                   those that try to break in: hostile inputs, planted identifiers
#   make test-slow  the tests that take minutes, on real images
#   make lint       ruff and mypy
#   make bench      the speed comparisons (studies/ has those of what is drawn and learned)
#   make server     MLflow + PostgreSQL + MinIO under Docker Compose, on loopback
#   make user ARGS='add NAME'   users of that server: list, add, password, remove, permit
#   make backup     both stores of that server into backups/TIME, while it runs
#   make restore FILE=backups/TIME   into a new stack; make upgrade, make rollback FILE=…, make gc:
#                   see tracking_server/KEEPING.md
#   make env        only the virtual environment; make lock resolves its versions anew

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env demo test test-doors test-slow lint bench server user backup restore upgrade rollback gc lock

RUN := .venv/bin/python -m
READY := .venv/.ready
# A file stays on one worker, where its fixtures are made once (groups, loadgroup, are not followed by
# pytest-xdist 3.8 under pytest 9.2). One thread a worker: more would fight over two cores.
TEST := OMP_NUM_THREADS=1 $(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder
LOCK := pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
        --python-version 3.11 --quiet

help:
	@sed -n 's/^#   //p' Makefile

env: $(READY)

# A changed lock or package definition brings the environment up to date; otherwise this costs nothing.
$(READY): requirements.lock pyproject.toml tools/make-env
	@tools/make-env
	@touch $@

demo: $(READY)
	.venv/bin/mammo main --profile demo

test: $(READY)
	$(TEST) -m "not slow and not doors" $(ARGS)

test-doors: $(READY)
	$(TEST) -m "doors and not slow" $(ARGS)

test-slow: $(READY)
	OMP_NUM_THREADS=2 $(RUN) pytest -m slow $(ARGS)

lint: $(READY)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

bench: $(READY)
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; .venv/bin/python "$$file"; done

server:
	tracking_server/make-secrets
	docker compose up --detach --build --wait
	@tracking_server/make-secrets --address

user:
	@docker compose exec mlflow python /server/start.py user $(ARGS)

KEEP := python3 tracking_server/keep.py --compose

# FILE is a folder, as a backup is; for backup it may be left out.
backup:
	@$(KEEP) backup $(FILE)

# A stack that was never started has no image, no databases and no bucket yet.
restore:
	@$(KEEP) verify "$(FILE)"
	tracking_server/make-secrets
	docker compose build --quiet prepare
	docker compose run --rm -T prepare
	@$(KEEP) restore "$(FILE)"
	docker compose up --detach --wait
	@tracking_server/make-secrets --address

# The server stands still meanwhile, and where the upgrade fails it stays so.
upgrade:
	docker compose build --quiet prepare
	docker compose --profile '*' stop mlflow dashboard proxy
	@$(KEEP) upgrade
	docker compose up --detach --wait

rollback:
	docker compose --profile '*' stop mlflow dashboard proxy
	@$(KEEP) rollback "$(FILE)"
	@echo "now start the server of that time: git checkout its commit, then make server"

gc:
	@$(KEEP) gc $(ARGS)

# The server image's versions are a part of the project's own, so that client and server agree.
lock: $(READY)
	.venv/bin/uv $(LOCK) --all-extras pyproject.toml -o requirements.lock
	.venv/bin/uv $(LOCK) tracking_server/requirements.in --constraints requirements.lock \
		-o tracking_server/requirements.lock
