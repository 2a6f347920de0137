# make repro: from a bare clone to the report. make test: everything that must pass. Both install what they need first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements/dev.lock
WANTED := --editable '.[dev]' --constraint $(LOCK)
export PATH := $(BIN):$(PATH)

.PHONY: repro test smoke lint lock params docs install clean

repro: $(STAMP)
	python -m pipeline.workspace --here --warm

smoke: $(STAMP)
	python -m pipeline.workspace smoke --warm

test: $(STAMP)
	OMP_NUM_THREADS=1 python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: $(STAMP)
	ruff check .
	ruff format --check .
	mypy

# requirements/dev.lock anew, with the latest releases that pyproject.toml, and pip on this machine, allow
lock: $(STAMP)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --no-annotate --quiet \
		--custom-compile-command 'make lock' --output-file $(LOCK) \
		$(addprefix --constraint ,$(shell "$(BIN)/python" -m pip config --global get global.constraint 2>/dev/null))

params: $(STAMP)
	python -m pipeline.profiles
	python -m pipeline.reference

# the documentation as a site, in site/
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict

install: $(STAMP)

$(STAMP): pyproject.toml $(LOCK)
	test -x "$(BIN)/python" || "$(PYTHON)" -m venv $(VENV)
	"$(BIN)/python" -m pip install --quiet --upgrade --constraint $(LOCK) pip uv
	# uv takes a third of pip's time; pip knows indexes of its own configuration
	UV_FIND_LINKS="$$PIP_FIND_LINKS" "$(BIN)/python" -m uv pip install --python "$(BIN)/python" $(WANTED) \
		|| "$(BIN)/python" -m pip install $(WANTED)
	"$(BIN)/python" -m pipeline.plots_page
	@touch $@

# what runs made; the environment stays
clean:
	rm -rf data models checkpoints metrics plots report fingerprints/*/files.json .alberti .dvc/cache .dvc/tmp
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache
