PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := src tests benchmarks examples docs .ci
# Tests start hundreds of processes: each would compile the package anew where Python is told to keep no bytecode.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test fuzz check format docs drawings dist test-wheel clean browser

demo: $(VENV)/installed
	$(BIN)/mcip demo
	@echo "Search the images on a page: $(BIN)/mcip serve runs/demo/photos.lance"

# The same examples each time; what could not be tested, and what it takes, stands in the last lines.
# Threads of a process would wait for those of the others.
test: export OMP_NUM_THREADS ?= 1
test: $(VENV)/installed browser
	$(BIN)/python -m pytest -n auto --dist worksteal

# Property tests with examples drawn afresh, and more of them.
fuzz: $(VENV)/installed
	$(BIN)/python -m pytest -n auto -m hypothesis --hypothesis-profile=fuzz

# Pages are tested in Chromium: root on Debian or Ubuntu gets it where it is missing.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	  && apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; } || true

check: $(VENV)/installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sphinx-build -b html -q -W --keep-going -D nb_execution_mode=off docs build/docs-check

format: $(VENV)/installed
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# The site in build/docs; a warning, such as a link that leads nowhere, is an error. Tutorials that have changed are run;
# `make check` builds it without running any.
docs: $(VENV)/installed
	$(BIN)/sphinx-build -b html -q -W --keep-going docs build/docs

# The drawings in docs/images.
drawings: $(VENV)/installed
	$(BIN)/python docs/drawings.py

# A source distribution, and the wheel that is built from it.
dist: $(VENV)/installed
	rm -rf dist
	$(BIN)/python -m build

# The wheel in an empty environment, which is removed afterwards.
test-wheel: dist
	$(PYTHON) .ci/wheel.py --constraint constraints.txt

# uv takes a third of pip's time; pip finds packages that only its own configuration names.
PACKAGES := --constraint constraints.txt --editable '.[dev]'
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(PACKAGES) \
	  || $(BIN)/python -m pip install --quiet $(PACKAGES)
	touch $@

clean:
	rm -rf $(VENV) build dist
