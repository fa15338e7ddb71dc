# make demo   raw text -> aligned model -> report, on this machine's CPU
# make test   lint, types, fast and slow tests;  make test DATA=DIR also runs those that need real data sets
.PHONY: demo test

PYTHON ?= python3
BIN := .venv/bin
DATA ?=
export HF_HUB_DISABLE_TELEMETRY = 1

demo: .venv/ready
	$(BIN)/python -m alignment run recipes/quickstart --resume

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow and not gpu" $(if $(DATA),--data-root=$(DATA))
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "slow and not gpu" $(if $(DATA),--data-root=$(DATA))

.venv/ready: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@
