# Everything a developer does. `make run` and `make test` set up what they need first.
PYTHON   ?= python3
VENV     ?= .venv
ARGS     ?=
# The way Pyrope itself is installed; empty (as in docker/Dockerfile) copies it into the venv.
EDITABLE ?= --editable

BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The lock files come from the public index alone, whatever a machine's own pip settings say.
LOCK := env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u PIP_INDEX_URL PIP_CONFIG_FILE=/dev/null \
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --strip-extras \
	--allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.PHONY: run install dependencies test lint format types check docs image bench lock clean

run: install
	exec $(BIN)/pyrope serve $(ARGS)

install: $(VENV)/.installed

dependencies: $(VENV)/.dependencies

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses auto $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

check: lint types test

docs: $(VENV)/.installed-dev
	$(BIN)/python -m pyrope.config --markdown > docs/settings.md
	$(BIN)/python -m pyrope.config --toml > configs/pyrope.toml
	$(BIN)/python -m pyrope.commands > docs/commands.md
	$(BIN)/python -m pyrope.http.metrics --markdown > docs/metrics.md

# The steps of docker/Dockerfile, without Docker: a minute, with a cache of packages.
image:
	docker/try-image.sh $(ARGS)

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.run $(ARGS)

lock: $(VENV)/.installed-dev
	$(LOCK) $(ARGS) --output-file=requirements.lock pyproject.toml
	$(LOCK) $(ARGS) --extra=bench --extra=dev --constraint=requirements.lock \
		--output-file=requirements-dev.lock pyproject.toml

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a second `make` finds them newer than the lock files and is quick.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"Pyrope needs Python 3.11 or later; name one with: make PYTHON=python3.11")'
	@if [ -e $(VENV) ] && [ ! -e $(VENV)/.made-by-make ]; then \
		echo "$(VENV) exists and is not this Makefile's: name another with VENV=..." >&2; exit 1; fi
	@mkdir -p $(VENV) && touch $(VENV)/.made-by-make
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.dependencies: requirements.lock $(VENV)/.created
	@echo "Installing what requirements.lock names (a minute or two the first time)"
	$(PIP) install --require-hashes --requirement requirements.lock
	@touch $@

$(VENV)/.installed: $(VENV)/.dependencies pyproject.toml
	$(PIP) install --no-deps $(EDITABLE) .
	@touch $@

# requirements-dev.lock holds everything that requirements.lock does, at the same versions.
$(VENV)/.installed-dev: requirements-dev.lock requirements.lock pyproject.toml $(VENV)/.created
	@echo "Installing what requirements-dev.lock names (a minute or two the first time)"
	$(PIP) install --require-hashes --requirement requirements-dev.lock
	$(PIP) install --no-deps $(EDITABLE) .
	@touch $(VENV)/.dependencies $(VENV)/.installed $@
