# make demo   a fit on simulated patients, from nothing      make test   the whole test suite, from nothing
# make check  format, lint, types, docs, tests          make docs   the site, in docs/_build/html
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
SAMPLES := 2000

.PHONY: demo test check docs format clean
.DELETE_ON_ERROR:

# One stamp per set of packages; a change of pyproject.toml installs again.
$(VENV)/.base: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cm2pyro needs Python 3.11 or later; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(VENV)/.check: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	touch $@

demo: $(VENV)/.base
	$(BIN)/cm2pyro simulate $(DEMO)/data --samples $(SAMPLES) --seed 0 --overwrite
	$(BIN)/cm2pyro fit configs/simulated.yaml --data $(DEMO)/data/manifest.csv --out $(DEMO)/run --overwrite
	$(BIN)/cm2pyro predict $(DEMO)/run --data $(DEMO)/data/manifest.csv --split test --out $(DEMO)/predictions.csv
	$(BIN)/cm2pyro evaluate $(DEMO)/run --data $(DEMO)/data/manifest.csv --patterns --out $(DEMO)/metrics.json --figure $(DEMO)/reliability.png
	@echo
	@echo "metrics:      $(DEMO)/metrics.json"
	@echo "predictions:  $(DEMO)/predictions.csv"
	@echo "picture:      $(DEMO)/reliability.png   (reliability, and accuracy by missingness pattern)"

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist loadscope --max-worker-restart 0

check: $(VENV)/.check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy cm2pyro
	$(MAKE) docs
	$(MAKE) test

docs: $(VENV)/.test
	$(BIN)/sphinx-build -q -W --keep-going docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

format: $(VENV)/.check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(DEMO) docs/_build build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
