# make demo       install into .venv, then the whole way once: photo, faces, codes, edits, pictures in out/demo
# make test       the core tests, under ten minutes on two cores
# make test-all   the slow ones too: browsers, servers, kills, fuzzing
# make lint       ruff, mypy, import contracts
# make bench      the numbers of bench/RESULTS.md
#
# Another PyTorch: make demo TORCH=2.11.0 TORCH_INDEX=https://download.pytorch.org/whl/cu128

PYTHON ?= python3
TORCH ?= 2.13.0
TORCH_INDEX ?=
EXTRAS ?= all
OUT ?= out/demo
SHARED ?= ../shared
OFFICIAL ?=

BIN := .venv/bin
READY := .venv/ready-torch-$(TORCH)$(if $(TORCH_INDEX),-$(notdir $(TORCH_INDEX)))

.PHONY: demo test test-all lint bench clean setup

demo: $(READY)
	$(BIN)/mien demo --outdir $(OUT)

test: $(READY)
	$(BIN)/python -m pytest

test-all: $(READY)
	$(BIN)/python -m pytest -m "slow and not gpu and not network" || test $$? -eq 5  # 5: there are none

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python bench/speed.py $(if $(OFFICIAL),--official $(OFFICIAL))
	$(BIN)/python bench/detector.py $(SHARED)/data/photos --yunet $(SHARED)/weights/face_detection_yunet_2023mar.onnx
	$(BIN)/python bench/face_network.py $(SHARED)/data
	$(BIN)/python bench/generator.py faces-64 --data $(SHARED)/data/faces128.zip
	$(BIN)/python bench/inversion.py $(SHARED)/data/faces128.zip --judge $(SHARED)/judge/judge.py
	$(BIN)/python bench/swap.py $(SHARED)/data/faces128.zip --judge $(SHARED)/judge/judge.py

clean:
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

setup: $(READY)

# PyTorch comes first and by its exact version, so that nothing else chooses another build of it.
$(READY): pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit('mien needs Python 3.11 or newer, this is ' + sys.version.split()[0] + '; try make PYTHON=python3.12' if sys.version_info < (3, 11) else 0)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet "torch==$(TORCH)" $(if $(TORCH_INDEX),--force-reinstall --index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS)]" --group dev "torch==$(TORCH)"
	@rm -f .venv/ready-torch-* && touch $@
