# make demo       train and test one network for all tasks on the miniature set, two CPU cores are enough; SEPARATE=1 one
#                 for each task
# make test       lint, import rules, fast tests; make test-all the slow ones as well
# make evidence   what the papers claim, tried in miniature: hours, goes on where it stopped;
#                 COMPARISONS="search sepc", WORKERS=2
# make gpu        the tests of a GPU, and the benchmark on it: with DEVICE=cuda, or with PYTHON, an interpreter that has
#                 torch with CUDA, pytest and this package
# make wheel      a wheel with compiled CPU operators, in dist/, for the Python and the torch of the environment, or with
#                 PYTHON, an interpreter that has torch, setuptools and wheel, for those
# make where FILE:LINE  the tests that run a line, from what make coverage has recorded
# make docs       the documentation as a site: build/docs/index.html
# make fuzz       hostile files and calls for MINUTES; make sanitize the operators under the sanitizers
# make clean      removes builds and environments, and leaves the results of all runs (work_dirs)
# All set up what they need. Options: DEVICE=cuda, TORCH=2.1, TORCH=2.15, PYTHON=/path/to/python, BACKBONE=name,
# NECK=sepc
TORCH ?= 2.11
DEVICE ?= cpu
BACKBONE ?= ic_resnet18
NECK ?=
SEPARATE ?=
MINUTES ?= 30
COMPARISONS ?=
WORKERS ?= 1
DEFAULT_TORCH := 2.11
VENV := .venv$(if $(filter $(DEFAULT_TORCH),$(TORCH)),,-torch$(TORCH))$(if $(filter cuda,$(DEVICE)),-cuda)
BIN := $(VENV)/bin
SETUP := tools/dev/setup/setup_env.sh $(TORCH) --venv $(VENV) --device $(DEVICE)
# tests of one file stay on one process: they share what they trained
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
# what breaks most often and is tried in half a minute
FIRST := tests/ops tests/test_names.py
export PYTHON
# mmengine's use of it; the pins hold a setuptools that has it
export PYTHONWARNINGS := ignore:pkg_resources is deprecated:UserWarning

# Set-up compiles no bytecode, of which few modules need any. Where none may be written either, as is usual in
# containers, each process would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup setup-tests demo evidence gpu wheel test test-all coverage where sanitize fuzz lint docs clean

setup:
	@$(SETUP)

setup-tests:
	@$(SETUP) --for-tests

demo: setup
	@$(BIN)/python tools/demo.py --device $(DEVICE) --backbone $(BACKBONE) $(if $(NECK),--neck $(NECK)) \
		$(if $(SEPARATE),--tasks detection instance semantic pose)

# All arms of docs/evidence.md, each with five seeds; every run leaves a file, and the next call goes on.
evidence: setup
	@$(BIN)/python tools/dev/evidence.py --device $(DEVICE) --workers $(WORKERS) \
		$(if $(COMPARISONS),--comparisons $(COMPARISONS))

gpu: PYTHON_OF_GPU := $(or $(PYTHON),$(BIN)/python)
gpu: $(if $(PYTHON),,setup-tests)
	@mkdir -p work_dirs
	$(PYTHON_OF_GPU) -m pytest -q -m gpu
	$(PYTHON_OF_GPU) tools/dev/benchmark.py --device cuda --out work_dirs/gpu.json

# setuptools would take yesterday's files from its folders.
wheel: $(if $(PYTHON),,setup)
	@rm -rf build/lib.* build/bdist.*
	ICCONV_MM_EXT=wheel $(or $(PYTHON),$(BIN)/python) -m pip wheel --no-build-isolation --no-deps -w dist .

# The ends of the supported range run these; the default torch runs everything.
test: lint
	$(PYTEST) $(FIRST)
	$(PYTEST) $(FIRST:%=--ignore %)
ifeq ($(DEVICE),cuda)
	$(PYTEST) -m gpu
endif

test-all: test
	$(PYTEST) -m "slow and not gpu and not network"

# Which lines each fast test runs.
coverage: setup-tests
	@rm -rf work_dirs/coverage && mkdir -p work_dirs/coverage
	$(BIN)/python -m coverage run -m pytest -n auto --maxprocesses 4 --dist loadfile -q; $(BIN)/python -m coverage combine -q

where: setup-tests
	@$(BIN)/python tools/dev/where.py $(filter-out where,$(MAKECMDGOALS))

# FILE:LINE behind `where` is no goal.
ifeq (where,$(firstword $(MAKECMDGOALS)))
.DEFAULT:
	@:
endif

# The compiled CPU operators under the address and undefined-behaviour sanitizers.
sanitize: setup-tests
	@tools/dev/sanitize.sh $(BIN)

# The last fifth of the time is under the sanitizers; goes on where it stopped.
fuzz: setup-tests
	@$(BIN)/python tools/dev/fuzz.py --minutes $(MINUTES)

lint: setup-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -z 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.inc' 'csrc/*.cu' 'csrc/*.cuh' | \
		xargs -0 $(BIN)/clang-format --dry-run -Werror
	PYTHONPATH=tools:tools/dev $(BIN)/lint-imports

docs: setup-tests
	$(BIN)/python -m sphinx -b html -c docs -W --keep-going -q . build/docs

clean:
	rm -rf build dist .venv .venv-*
