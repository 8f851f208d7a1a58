# One line each; CI calls the same targets. PYTHON is the interpreter of an environment with the `dev` extra.
PYTHON ?= python3
DEMO_VENV ?= .venv
SHORT_BENCHMARK = --backends torch,onnxruntime,openvino --batch 1,4 --rounds 2 --seconds 0.5 --video-seconds 6

.PHONY: demo install test lint format soak bench bench-all tiny gpu

demo: ## localize the sources of a rendered video, from a fresh clone with only Python and make
	test -x $(DEMO_VENV)/bin/avgn || { $(PYTHON) -m venv $(DEMO_VENV) && $(DEMO_VENV)/bin/pip install --quiet -e '.[runtime,cpu]'; }
	$(DEMO_VENV)/bin/avgn demo --output demo-out

install: ## everything that development needs, into the current environment
	$(PYTHON) -m pip install -e '.[dev]'

test: ## the whole suite but the long checks
	$(PYTHON) -m pytest -q -m "not soak" tests

lint: ## style, types and the import rules
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

soak: ## long checks that `make test` leaves out
	$(PYTHON) -m pytest -q -m soak tests
	$(PYTHON) -m benchmarks.soak --minutes 30 --output benchmarks/results/soak.json

bench: ## the numbers of README: ten minutes of measuring on a quiet machine
	$(PYTHON) -m avgn benchmark tiny --checkpoint benchmarks/checkpoints/tiny $(SHORT_BENCHMARK) --json benchmarks/results/benchmark.json --plot docs/benchmark.png
	$(PYTHON) -m benchmarks.model --output benchmarks/results/model.json --seconds 15
	$(PYTHON) -m benchmarks.streaming --output benchmarks/results/streaming.json --plot docs/streaming.png --seconds 5
	$(PYTHON) -m benchmarks.scaling --output benchmarks/results/scaling.json --plot docs/scaling.png --seconds 12
	$(PYTHON) -m benchmarks.training --output benchmarks/results/training.json --rounds 3
	$(PYTHON) -m benchmarks.startup --output benchmarks/results/startup.json --runs 5
	$(PYTHON) -m benchmarks.card
	$(PYTHON) -m benchmarks.tables

bench-all: bench ## the numbers of all pages: accuracy, kernels, export, reaction, the GPU's predicted budget; half an hour
	$(PYTHON) -m benchmarks.quality --output benchmarks/results/quality.json
	$(PYTHON) -m benchmarks.kernels --output benchmarks/results/kernels.json --plot docs/kernels.png
	$(PYTHON) -m benchmarks.export --output benchmarks/results/export.json
	$(PYTHON) -m benchmarks.reaction --output benchmarks/results/reaction.json
	$(PYTHON) -m benchmarks.budget --output benchmarks/results/gpu-budget.json
	$(PYTHON) -m benchmarks.card
	$(PYTHON) -m benchmarks.tables

tiny: ## train the shipped bundle again (about an hour on 2 cores)
	$(PYTHON) -m benchmarks.tiny --output runs/tiny

gpu: ## what needs a GPU, in 8 minutes, as one JSON to commit; make gpu GPU=--dry-run lists the steps
	$(PYTHON) -m benchmarks.gpu --output benchmarks/results/gpu.json $(GPU)
