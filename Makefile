# Everything from a fresh clone: `make demo`, `make test`. The rest is what developers type.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = setup.py pyproject.toml $(shell find csrc -type f)

REQUIREMENTS ?= requirements.txt

.PHONY: help demo pictures rates figures docs test test-long test-documents test-faults test-finite test-sanitized coverage \
  fuzz lint format bench build wheels test-wheels clean

help:            ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: build      ## train two systems on the shipped photographs, complete unseen ones (6 minutes with the build, 8 beside another job)
	rm -rf demo
	$(BIN)/inpaint-fast demo --out demo

pictures: build  ## a short run of every recipe: docs/<recipe>.png, docs/pictures.csv, the table of docs/systems.md (half an hour on one core)
	rm -rf runs/pictures
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/figures.py

rates: build    ## the plots of training's rates, from the CSVs, one a device (needs matplotlib)
	$(BIN)/python docs/rates.py

figures:         ## the figures of README.md and docs/, from the CSVs, and docs/parity.md, from the tests (needs Python alone)
	$(PYTHON) docs/figures.py
	$(PYTHON) docs/parity.py

docs: build      ## the API reference, from the docstrings: build/docs/index.html
	$(BIN)/python -W error docs/reference.py

# A test that hangs ends its worker, with the stack of every thread, instead of the hour.
HANGS = -o faulthandler_timeout=400 -o faulthandler_exit_on_timeout=true
test: build      ## every test but the long sweeps (at most 8 minutes on two cores)
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(HANGS) -m "not long" -n auto --dist worksteal

test-long: build ## the long sweeps alone
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -m long

test-documents: build  ## the README as it is printed, every block and command of docs/ (a few minutes)
	$(BIN)/python -m pytest -m "long or not long" tests/test_documents.py

coverage: build  ## make test with the lines of Python that it runs; files below 90 % by name (kernels are interpreted, unseen)
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(HANGS) -m "not long" -n auto --dist worksteal --cov=inpaint_fast --cov-report=
	$(BIN)/python -m coverage json -q -o build/coverage.json
	$(BIN)/python tests/covered.py build/coverage.json

test-faults: build  ## every fault that docs/reliability.md tells of, as often as it says (some 20 minutes)
	INPAINT_FAST_FAULTS=whole $(BIN)/python -m pytest -rP tests/faults

test-finite: build  ## every recipe for 2,000 steps on the samples: no value may be other than finite (many hours)
	$(BIN)/python -m pytest -m long tests/training/test_systems.py -k two_thousand_steps

fuzz: build      ## 600 drawn calls of every operator in child processes: what died, what was wrong
	PYTHONPATH=tests $(BIN)/python -m fuzz --calls 600

# Leaks are Python's and PyTorch's own; vectors of 64 bytes are read where elements lie.
SANITIZE = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
test-sanitized: $(VENV)/.installed  ## the operators' CPU tests under AddressSanitizer and UBSan (a build of its own)
	rm -rf build/sanitized/lib
	INPAINT_FAST_CUDA=0 INPAINT_FAST_CPU_FLAGS="$(SANITIZED_FLAGS)" CXXFLAGS="-O1 -g1 $(SANITIZE)" LDFLAGS="$(SANITIZE)" \
	  $(BIN)/python setup.py --quiet build --build-base build/sanitized --build-lib build/sanitized/lib
	cd build/sanitized/lib && \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 TRITON_INTERPRET=1 PYTHONPATH=$(CURDIR)/tests \
	  $(abspath $(BIN))/python -m pytest $(HANGS) -m "not long" -k "not compile and not emulated and not triton" \
	  $(addprefix $(CURDIR)/,$(SANITIZED_TESTS))
# One instruction set, and not the plain one: its vectors of arrays take the compiler a quarter of an hour.
SANITIZED_FLAGS ?= $(if $(filter x86_64,$(shell uname -m)),-mavx2 -mfma -mf16c)
SANITIZED_TESTS ?= $(addprefix tests/ops/,$(addsuffix .py,conv_block/test_dilated conv_block/test_dilated_gradients conv_block/test_resampling \
  masked_l2/test_parity masked_l2/test_gradients norm_act/test_parity weight_clip/test_parity test_activations)) tests/optim tests/fuzz

lint: $(VENV)/.installed  ## ruff, clang-format and pyright, changing nothing
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

format: $(VENV)/.installed  ## let ruff and clang-format change the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

HELPERS = __init__ counters harness machine peers plot processes rooflines
bench: build     ## every benchmark; tables on the terminal, CSV and plots in runs/benchmarks/
	mkdir -p runs/benchmarks
	for stem in $(patsubst benchmarks/%.py,%,$(filter-out $(HELPERS:%=benchmarks/%.py),$(wildcard benchmarks/*.py))); do \
	  $(BIN)/inpaint-fast bench $$stem --csv runs/benchmarks/$$stem.csv --plot runs/benchmarks/$$stem.png || exit 1; done

build: $(VENV)/.built  ## the virtual environment and the compiled extension

$(VENV)/.installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	for file in $(REQUIREMENTS); do $(BIN)/pip install --quiet -r $$file || exit 1; done
	touch $@

$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --no-deps -e .
	touch $@

wheels: $(VENV)/.installed  ## wheels as a release ships them, without and with CUDA kernels, in dist/
	$(BIN)/python tests/wheels.py build

test-wheels: wheels  ## each installed into an empty environment and tested outside the checkout
	$(BIN)/python tests/wheels.py try

clean:           ## remove everything that was built; keep the sources
	rm -rf $(VENV) build dist *.egg-info inpaint_fast/_C*.so inpaint_fast/_not_compiled.txt
