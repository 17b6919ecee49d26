# make demo   train and test one network for all tasks on the miniature set, two CPU cores are enough; SEPARATE=1 one
#             for each task
# make test   lint, import rules, all tests
# make gpu    all that is to be measured on a GPU; nine minutes a call, the next one continues
# make evidence   what the papers claim, tried in miniature: hours, goes on where it stopped;
#             COMPARISONS="search sepc", WORKERS=2
# make clean  removes builds and environments; make distclean the results of all runs (work_dirs) as well
# make docs   the documentation as a site; make docs-serve shows it on http://127.0.0.1:8000
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
# tests of one file stay on one process: they share what they trained
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
export PYTHON
# mmengine's use of it; the pins hold a setuptools that has it
export PYTHONWARNINGS := ignore:pkg_resources is deprecated:UserWarning

# Set-up compiles no bytecode, of which few modules need any. Where none may be written either, as is usual in
# containers, each process would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup setup-tests demo evidence gpu test test-fast test-slow sanitize fuzz lint docs docs-serve clean distclean

setup:
	@scripts/setup_env.sh $(TORCH) --venv $(VENV) --device $(DEVICE)

setup-tests:
	@scripts/setup_env.sh $(TORCH) --venv $(VENV) --device $(DEVICE) --for-tests

demo: setup
	@$(BIN)/python tools/demo.py --device $(DEVICE) --backbone $(BACKBONE) $(if $(NECK),--neck $(NECK)) \
		$(if $(SEPARATE),--tasks detection instance semantic pose)

# All arms of docs/evidence.md, each with five seeds; every run leaves a file, and the next call goes on.
evidence: setup
	@$(BIN)/python tools/evidence.py --device $(DEVICE) --workers $(WORKERS) \
		$(if $(COMPARISONS),--comparisons $(COMPARISONS))

# All that is to be measured on a GPU, most important first: nine minutes a call, the next one continues. PYTHON names
# an interpreter that has torch with CUDA and this package with its operators; without it, an environment is set up.
gpu: $(if $(PYTHON),,setup-tests)
	@mkdir -p work_dirs
	@$(if $(PYTHON),$(PYTHON),$(BIN)/python) tools/gpu_acceptance.py --out work_dirs/gpu_acceptance.json

# The ends of the supported range run the fast tests; the default torch runs everything.
test: lint test-fast $(if $(filter $(DEFAULT_TORCH),$(TORCH)),test-slow)

test-fast: setup-tests
	$(PYTEST)
ifeq ($(DEVICE),cuda)
	$(PYTEST) -m gpu
endif

test-slow: setup-tests
	$(PYTEST) -m "slow and not gpu and not network"

# The compiled CPU operators under the address and undefined-behaviour sanitizers.
sanitize: setup-tests
	@scripts/sanitize.sh $(BIN)

# Hostile files and calls for as long as told, the last fifth of the time under the sanitizers; goes on where it
# stopped.
fuzz: setup-tests
	@$(BIN)/python scripts/fuzz.py --minutes $(MINUTES)

lint: setup-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -z 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.inc' 'csrc/*.cu' 'csrc/*.cuh' | \
		xargs -0 $(BIN)/clang-format --dry-run -Werror
	PYTHONPATH=tools $(BIN)/lint-imports

# The site of the documentation: build/docs/index.html
docs: setup-tests
	$(BIN)/python -m sphinx -b html -c docs -W --keep-going -q . build/docs

docs-serve: docs
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/docs 8000

clean:
	rm -rf build dist .venv .venv-*

# Results of hours, those of make evidence among them.
distclean: clean
	rm -rf work_dirs
