# make demo   a fit on simulated patients, from nothing      make test   the whole test suite, from nothing
# make check  format, lint, types, docs, and the tests that are not slow     make coverage   all tests, and which lines they run
# make docs   the site, in docs/_build/html
# make floor  a short part of the tests with the oldest versions that pyproject.toml allows     make dist   sdist and wheel
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
SAMPLES := 2000

.PHONY: demo test check docs coverage floor dist format clean
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
	$(BIN)/python -m pytest -n auto --dist loadscope --max-worker-restart 0 -m "not slow"

# TESTS=tests/data: of a part.
coverage: $(VENV)/.check
	$(BIN)/python -m pytest -n auto --dist loadscope --max-worker-restart 0 --cov --cov-report=term:skip-covered $(TESTS)

# The lower bounds of pyproject.toml, each as it stands there; what those need in turn is the newest that fits.
floor: $(VENV)/.check
	test -x .venv-floor/bin/python || $(PYTHON) -m venv .venv-floor
	$(BIN)/uv pip install --python .venv-floor/bin/python --resolution lowest-direct --editable '.[test]'
	.venv-floor/bin/python -m pytest -p no:xdist $(or $(TESTS),$(FLOOR))

FLOOR := tests/test_config.py tests/test_config_file.py tests/test_shipped_configs.py tests/cli/test_commands.py tests/cli/test_diagnose.py tests/cli/test_prepare.py \
	tests/data/test_image.py tests/data/test_text.py tests/encoders tests/distributions/copulas/test_contract.py tests/guides \
	tests/inference/test_fit.py tests/inference/test_bayes.py tests/diagnostics/test_inference_data.py tests/trackers

dist: $(VENV)/.test
	$(BIN)/python -m build

docs: $(VENV)/.test
	$(BIN)/sphinx-build -q -W --keep-going docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

format: $(VENV)/.check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(DEMO) docs/_build build dist *.egg-info .venv-floor .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
