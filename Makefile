# `make demo` and `make test` do all their own set-up.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-all test-learning lint docs clean

demo: $(VENV)/.core
	$(VENV)/bin/rushlight compare fashion \
		--methods "supervised, fixmatch, iomatch, barlow-twins > supervised, barlow-twins > iomatch" \
		--budget 90k --seeds 4 --out rushlight-demo

PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $${PYTEST_WORKERS:-2}

test: $(VENV)/.test
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.test
	$(PYTEST)

# The tests that train, once more in the arithmetic of older processors.
test-learning: $(VENV)/.test
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST) -m learns

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(VENV)/.docs
	$(VENV)/bin/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Rushlight needs Python 3.11 or newer: make PYTHON=python3.11 …"'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"

$(VENV)/.core: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) install --constraint constraints.txt --editable '.[hub,onnx,cluster,depth]' --group test
	$(PIP) install --constraint constraints.txt --no-deps lightly lightly-utils torchattacks  # oracles; their pins are old
	touch $@

$(VENV)/.lint: $(VENV)/.core
	$(PIP) install --constraint constraints.txt --group lint
	touch $@

$(VENV)/.docs: $(VENV)/.core
	$(PIP) install --constraint constraints.txt --group docs
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis site rushlight-demo
