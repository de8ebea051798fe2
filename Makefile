# `make export MODEL=mobilenetv2` and `make test` do everything, set-up included.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

MODEL     ?= mobilenetv2
WEIGHTS   ?= trained
DATA      ?=
PRECISION ?= fp32,fp16,int8
TARGET    ?= ort-x86,trt
OUT       ?=
ARGS      ?=
JOBS      ?= 2
SECONDS   ?= 3600
MINUTES   ?= 25
SEED      ?= 0
LOCK      ?=

# Scripts that import onnxruntime before anything of ours tell nobody either.
export ORT_DISABLE_TELEMETRY ?= 1

# pip compiles nothing (that would be half of the set-up); what is used is compiled once, on first use, and kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup lock export test test-nightly test-fast coverage mutate docs fuzz lint type bench bench-quick bench-gate bench-passes bench-quant bench-photos corpus gpu-check sweep-fp16 zoo-table clean

help:  ## Show the targets.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready  ## Make .venv; a second call installs nothing. LOCK=lock.txt: only files with these hashes, torch apart.

$(VENV)/.ready: pyproject.toml constraints.txt $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "edgesmith needs Python 3.10 or newer; got $$($(PYTHON) --version). Name one: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(if $(LOCK),$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --require-hashes -r $(LOCK))
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[export,optimize,ort,trt-rtx,dev]'
	@touch $@

# torch and what its build brings differ by index (CPU, CUDA), so `make setup` installs these by version only.
UNLOCKED = torch triton cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 \
  nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 \
  nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

PIN = uv pip compile --universal --python-version 3.10 -c constraints.txt --generate-hashes --no-annotate --no-header
lock:  ## Write lock.txt anew: the hashes of every file of the versions in constraints.txt, for every system. Needs uv.
	{ $(PIN) pyproject.toml --all-extras $(UNLOCKED:%=--no-emit-package %) && echo tritonclient | $(PIN) --no-deps -; } > lock.new || { rm lock.new; exit 1; }
	mv lock.new lock.txt

export: $(VENV)/.ready  ## A network to a verified bundle: MODEL, WEIGHTS, DATA, PRECISION, TARGET, OUT, ARGS.
	@$(BIN)/edgesmith export "$(MODEL)" --weights "$(WEIGHTS)" --data "$(DATA)" --precision $(PRECISION) --target $(TARGET) \
	  $(if $(OUT),--out "$(OUT)") $(ARGS)

# A file's tests stay on one worker, for they share what is made once; files begin in the order of tests/conftest.py.
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
COVER = COVERAGE_FILE=$(CURDIR)/.coverage $(PYTEST) --cov

test: $(VENV)/.ready  ## Every test, the quick ones with coverage: `coverage report` shows it.
	@$(COVER) --cov-report=

test-nightly: $(VENV)/.ready  ## The repeats that `make test` leaves out: more networks, more moments of kill -9, longer fuzzing.
	@$(PYTEST) -m nightly

test-fast: $(VENV)/.ready  ## Every test that is not marked slow.
	@$(PYTEST) -m 'not slow'

coverage: $(VENV)/.ready  ## The lines and branches of the package that the quick tests reach.
	@$(COVER) -m 'not slow' --cov-report=term:skip-covered

mutate: $(VENV)/.ready  ## Which small changes to passes, quantiser, statistics and comparison the tests notice; resumable.
	@PYTHONPATH=tests $(BIN)/python tests/support/mutate.py

docs: $(VENV)/.ready  ## The API's pages from its docstrings, in site/; a warning is an error.
	@$(BIN)/python tests/support/api_docs.py site

fuzz: $(VENV)/.ready  ## Hostile inputs of every kind for SECONDS (an hour), seeded by SEED.
	@mkdir -p results && PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(SECONDS) --seed $(SEED) --json results/fuzz.json

lint: $(VENV)/.ready  ## ruff.
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: $(VENV)/.ready  ## mypy, strict, on the package.
	@$(BIN)/python tests/support/typecheck.py

bench: $(VENV)/.ready  ## Twelve networks, by form and backend, with kernels and modelled boards; resumable.
	@$(BIN)/edgesmith bench --all

bench-quick: $(VENV)/.ready  ## mobilenetv2 and shufflenetv2 against resnet18 and resnet50.
	@$(BIN)/edgesmith bench

bench-gate: $(VENV)/.ready  ## The latency gate and four rivals on known slowdowns and on none, for MINUTES; resumable.
	@PYTHONPATH=tests $(BIN)/python tests/support/bench_gate.py --minutes $(MINUTES) --out results/gate.json

bench-passes: $(VENV)/.ready  ## The graph optimizer beside its peers, which get an environment of their own.
	@PYTHONPATH=tests $(BIN)/python -m experiments.optimizer_peers

bench-quant: $(VENV)/.ready  ## The quantiser beside its peers, on five networks or on ONNX=net.onnx; resumable.
	@$(BIN)/python tests/support/bench_quant.py $(ONNX) $(if $(ONNX),,--table docs/measurements/quantisation)

corpus: $(VENV)/.ready  ## Networks that nobody here wrote, through every stage; resumable. ARGS="--only 'timm-*' --shard 1/3".
	@PYTHONPATH=tests $(BIN)/python -m corpus $(ARGS)

bench-photos: $(VENV)/.ready  ## The quantiser beside its peers on public weights and photographs; resumable. ONLY, TOOLS.
	@PYTHONPATH=tests:tests/support $(BIN)/python -m photos --table docs/measurements/photos.md \
	  $(if $(ONLY),--only "$(ONLY)") $(if $(TOOLS),--tools "$(TOOLS)")

gpu-check: $(VENV)/.ready  ## On a machine with an NVIDIA GPU: its tests, then the zoo by every way, within 10 minutes. ARGS=--dry.
	@PYTHONPATH=tests $(BIN)/python -m gpu $(ARGS)

sweep-fp16: $(VENV)/.ready  ## FP16 of every network up to 30 M parameters, with random weights; resumable.
	@$(BIN)/python tests/support/sweep_fp16.py --table docs/measurements/fp16.md

zoo-table: $(VENV)/.ready  ## Every network through export, passes, parity, engines and latency; resumable.
	@PYTHONPATH=tests $(BIN)/python -m experiments.zoo_table

clean:  ## Remove what the other targets made, .venv apart.
	rm -rf bundles results site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
