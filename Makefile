# Each target works on a fresh machine that has Python 3.11+ and nothing else.
PYTHON ?= python3
BIN := .venv/bin
# Where there is no NVIDIA GPU, the CPU build of torch is enough and a tenth of the size.
TORCH ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo 'torch>=2.11,<2.14' || echo 'torch==2.13.0')

.PHONY: demo test test-fast chaos gpu gpu-job lint clean

# The bundled recordings, with the bundled model or with another: make demo MODEL=base
MODEL ?= demo
DEMO_OUT ?= out/demo$(if $(filter-out demo,$(MODEL)),-$(notdir $(MODEL)))
demo: .venv/installed
	@$(BIN)/earshard transcribe pipeline/demo/speech --model $(MODEL) --output $(DEMO_OUT) \
	  --references pipeline/demo/speech/references.tsv --print-transcripts

test: .venv/tested
	$(BIN)/python -m pytest

# What starts no Ray, in two processes: two minutes on two cores.
test-fast: .venv/tested
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not ray and not slow"

# Faults of every kind for MINUTES minutes, and a table of what came of them.
MINUTES ?= 30
chaos: .venv/tested
	$(BIN)/python -m tests.chaos.run --minutes $(MINUTES)

# On a machine with a GPU, torch, transformers and triton, and nothing else of ours: at most eight minutes.
GPU_JSON ?= gpu.json
gpu:
	$(PYTHON) -m pytest tests/engine/test_gpu.py
	$(PYTHON) -m jobs.benchmark --suite gpu --json $(GPU_JSON)

# A whole job on that machine, Ray and all; WHEELS is a folder that holds what it lacks (see the script's head).
gpu-job:
	tests/gpu_job.sh $(WHEELS)

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/tested: .venv/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv out
