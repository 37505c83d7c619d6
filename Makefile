# make help lists the targets. They use the virtual environment in .venv, which is made if missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported. To compile all of them takes a minute, and most
# of them are never imported. But where Python may not keep what it compiles, every start would
# compile it again, which takes eight seconds a stage.
INSTALL := python -m pip install --quiet --disable-pip-version-check \
  $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)
# The engines of docs/scale.md to test; one alone: make test-engines ENGINES=ray
ENGINES ?= ray spark
# The number of test processes. Each has one thread, so two occupy two cores.
WORKERS ?= 2
AT_ONCE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# dvc.yaml says "python": let it be that of the virtual environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

.DEFAULT_GOAL := help
.PHONY: help setup repro demo verify test coverage test-engines matrix mutants lint audit soak bench \
  format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/runtime.done ## make .venv with what the pipeline needs

repro: $(VENV)/runtime.done ## run what changed since the last time, and show the results
	@python -m commands.repro

demo: $(VENV)/runtime.done ## show the pipeline on 64 reviews per split; your results stay as they are
	@python -m commands.demo

verify: $(VENV)/runtime.done ## recompute the committed scores and compare; your results stay as they are
	@python -m commands.verify $(ARGS)

test: $(VENV)/dev.done ## run all tests, those that depend on the precision in the other one too
	pytest $(or $(ARGS),$(AT_ONCE))
	$(if $(ARGS),,AUTO_PRECISION=$$(python -m tests.other_precision) pytest $(AT_ONCE) -m precision)

coverage: $(VENV)/dev.done ## measure which branches of stages and commands the tests run: tmp/coverage
	rm -rf tmp/coverage && mkdir -p tmp/coverage
	COVERAGE_FILE=$(CURDIR)/tmp/coverage/data coverage run -m pytest $(or $(ARGS),$(AT_ONCE))
	COVERAGE_FILE=$(CURDIR)/tmp/coverage/data coverage combine --quiet
	COVERAGE_FILE=$(CURDIR)/tmp/coverage/data coverage report

test-engines: $(ENGINES:%=.venv-engines/%.done) ## run extraction under Ray Data and Spark
	ENGINES="$(ENGINES)" OMP_NUM_THREADS=1 .venv-engines/bin/python -m pytest -rs tests/engines.py $(ARGS)

matrix: $(VENV)/dev.done ## run the quick tests in other environments: threads, locale, umask, path
	python tests/matrix.py

mutants: $(VENV)/dev.done ## mutate the code that keeps outputs from being lost: tests must notice
	python tests/mutants.py $(ARGS)

lint: $(VENV)/actionlint.done ## check style, format, types, security and the workflow
	ruff check .
	ruff format --check .
	lint-imports --no-logo --no-cache
	mypy
	bandit --quiet --configfile pyproject.toml --recursive stages commands
	@if command -v actionlint > /dev/null; then echo actionlint; actionlint; else $(NO_ACTIONLINT); fi

audit: $(VENV)/dev.done ## look for known vulnerabilities in what requirements.txt pins
	uvx pip-audit --disable-pip --no-deps --requirement requirements.txt

soak: $(VENV)/dev.done ## kill the pipeline at N random moments, and print survived/tried
	python tests/soak.py $(or $(N),20)

bench: $(VENV)/dev.done ## time the stages against the tutorials' way: metrics/bench.md
	dvc repro download
	python -m bench $(ARGS)

format: $(VENV)/dev.done ## fix style and format
	ruff check --fix .
	ruff format .

lock: $(VENV)/dev.done ## pin requirements*.txt anew from requirements*.in
	uv pip compile -q --upgrade $(LOCK) requirements.in -o requirements.txt
	uv pip compile -q --upgrade $(LOCK) requirements-dev.in -o requirements-dev.txt
	uv pip compile -q --upgrade $(LOCK) requirements-engines.in -o requirements-engines.txt
	uv pip compile -q --upgrade $(LOCK) requirements-actionlint.in -o requirements-actionlint.txt

clean: ## delete the virtual environments and temporary files, but no data
	rm -rf $(VENV) .venv-engines tmp .pytest_cache .ruff_cache .mypy_cache

$(VENV)/runtime.done: requirements.txt
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or \
		sys.exit('Python %d.%d is not one of 3.10 to 3.13: make PYTHON=python3.12 ...' % v)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/$(INSTALL) -r requirements.txt
	touch $@

$(VENV)/dev.done: $(VENV)/runtime.done requirements-dev.txt
	$(BIN)/$(INSTALL) -r requirements-dev.txt
	touch $@

# This environment also sees the packages of .venv: torch is not installed twice. DVC ignores it.
.venv-engines/%.done: $(VENV)/dev.done requirements-engines.txt
	$(BIN)/python -m venv --without-pip .venv-engines
	echo '*' > .venv-engines/.dvcignore
	for packages in $(VENV)/lib/python*/site-packages; do \
		echo "$(CURDIR)/$$packages" > ".venv-engines/$${packages#$(VENV)/}/shared.pth"; done
	.venv-engines/bin/$(INSTALL) -c requirements-engines.txt $(PACKAGE_$*)
	touch $@

PACKAGE_ray := ray[data]
PACKAGE_spark := pyspark

# Tried once: if it cannot be installed, lint goes on without it, unless REQUIRE_ACTIONLINT is set.
$(VENV)/actionlint.done: $(VENV)/dev.done requirements-actionlint.txt
	@$(BIN)/$(INSTALL) -r requirements-actionlint.txt 2> $(VENV)/actionlint.log || true
	@touch $@

NO_ACTIONLINT := echo "warning: no actionlint, the workflow is not checked: see $(VENV)/actionlint.log" >&2; \
	[ -z "$$REQUIRE_ACTIONLINT" ]

# One version for every Python from 3.10, so that results do not depend on it. The CUDA packages are
# pinned by torch itself, and are not installed with its CPU build.
LOCK := --universal --python-version 3.10 --fork-strategy fewest --no-header --no-annotate \
	$(addprefix --no-emit-package ,cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas \
	nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft \
	nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 \
	nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton)
