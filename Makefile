# make test: environment, tests, coverage.   make lint: ruff and mypy.
# make stress MODELS=dir IMAGES=dir: label maps against PaddleSeg's, pixel for pixel.

PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
ORACLE := paddleseg==2.8.0

.PHONY: test lint stress clean

test: $(VENV)/ready
	$(BIN)/python -m pytest -q --cov --cov-report=term

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

stress: $(VENV)/ready
	@test -n "$(MODELS)" -a -n "$(IMAGES)" || { echo "make stress MODELS=dir IMAGES=dir"; exit 2; }
	$(BIN)/python -W ignore tests/compare.py --models "$(MODELS)" --images "$(IMAGES)"

$(VENV)/ready: requirements.txt requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed: none was found"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt -r requirements-dev.txt
	$(BIN)/pip install --quiet --no-deps $(ORACLE)
	touch $@

clean:
	rm -rf $(VENV) .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
