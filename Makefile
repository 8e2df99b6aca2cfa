# The verbs of the project. `make` alone lists them.
#
# PYTHON      the interpreter of the environment: 3.11 or newer, with venv
# TORCH_ARGS  further arguments of `pip install torch`, for example the index of CPU builds
# MODEL       what `serve` and `demo` run: a hub id, a folder or a GGUF file
# BASE        the commit whose schema must stay compatible

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$python; break; }; done)
TORCH_ARGS ?=
MODEL ?= smollm2-135m-instruct
BASE ?= HEAD~1
SCRATCH := .lockstep
INSTALLED := $(VENV)/.installed
# The first installation takes minutes and shows its progress; a later one has little to say.
QUIET := $(if $(wildcard $(INSTALLED)),--quiet)
PIP := $(BIN)/python -m pip --disable-pip-version-check $(QUIET)

# The recipes call the environment's tools by name, and so do the tools they start.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install model demo serve test test-images bench check images dist protos client docs site \
	fresh breaking clean

help:  ## List the verbs.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

install: $(INSTALLED)  ## Create .venv with the services, the client and the tools.

$(INSTALLED): pyproject.toml protos/pyproject.toml client/python/pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: make PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt $(TORCH_ARGS) torch
	$(PIP) install --constraint constraints.txt \
		--editable protos --editable client/python --editable '.[tokenizer,model,otel,dev,docs]'
	@touch $@

model: install  ## Obtain and convert the default model, once.
	python -m checkpoints

demo: install  ## Ask one question through both services.
	python -m deploy.local demo --model "$(MODEL)"

serve: install  ## Keep both services up until Ctrl-C.
	python -m deploy.local serve --model "$(MODEL)"

# Files in the order of folders, so that those of a moment (tests/unit) are left for the end.
test: install  ## Run the tests, in three processes: they wait a good part of the time.
	pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-images: install  ## Build the images on a base of Debian's, run the rendered pods with podman (root).
	tests/images/prepare
	pytest -m images tests/images

bench: install  ## Measure against what else is installed: bench/README.md.
	python -m bench

check: install breaking fresh  ## Format, lint, types, imports, schema: what CI runs before the tests.
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	buf lint protos
	buf format --diff --exit-code protos
	hadolint deploy/containers/*.Containerfile

images:  ## Build both container images with buildah, each with a bill of materials.
	deploy/containers/build tokenizer
	deploy/containers/build model

dist: install  ## Build wheels and source archives of all distributions into dist/.
	rm -rf dist
	for project in protos client/python .; do \
		python -m build --no-isolation --outdir dist $$project || exit; done
	twine check --strict dist/*

protos: install  ## Generate protos/gen from the schemas, and what the client takes from them.
	buf format --write protos
	rm -rf protos/gen
	protos/generate protos/gen
	python -m client.generate

client: install  ## Generate the blocking client from the asyncio one, and keywords from the schemas.
	python -m client.generate

docs: install  ## Write what pages and dashboard take from the code.
	python -m docs.generate
	python -m deploy.grafana
	python -m deploy.kubernetes

site: install  ## Build the pages as a site, strictly, with a reference made from docstrings.
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet
	@echo "The site is in $(SCRATCH)/site."

fresh: install
	@rm -rf $(SCRATCH)/gen
	protos/generate $(SCRATCH)/gen
	diff --recursive --exclude __pycache__ protos/gen $(SCRATCH)/gen
	python -m client.generate --check

breaking: install
	@rm -rf $(SCRATCH)/base && mkdir -p $(SCRATCH)/base
	@if git cat-file -e $(BASE):protos/buf.yaml 2>/dev/null; then \
		git archive $(BASE) protos | tar -x -C $(SCRATCH)/base \
		&& echo "buf breaking protos --against $(BASE)" \
		&& buf breaking protos --against $(SCRATCH)/base/protos; \
	else echo "$(BASE) has no schema to stay compatible with."; fi

clean:  ## Remove the environment and everything generated outside of git.
	rm -rf $(VENV) $(SCRATCH) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
