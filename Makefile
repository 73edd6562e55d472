# make demo: makes the demo's masks, compares them with the demo's label maps, and makes a page of both.
# make test: runs the tests. make coverage: runs them and measures the coverage.
# make lint: runs ruff, mypy and import-linter.
# make clean: removes environments, caches and output.
# make test-gpu-config: tests the flags with the GPU build of Paddle; needs no GPU.
# make stress: tests kills, restarts and bad files for minutes. With MODELS=dir IMAGES=dir it
# compares the label maps of these models and images with PaddleSeg's, pixel for pixel.
# make stress-slurm: examples/slurm.sh in a private Slurm, for 4 minutes. Needs root and Debian's
# slurm-wlm. make stress-hosts: Ray on three network namespaces, for 15 minutes. Needs root and Debian's
# iproute2; some cases need openssh-server, faketime or PyPI. make stress-container: the steps of
# examples/Containerfile in a private Debian. Needs root, Debian's debootstrap, Debian's and PyPI's
# servers. They print what they do, and clean up after themselves.
# make bench: measures the figures on the pages, which takes a long time. BENCH= selects benchmarks,
# PAIRS= sets the number of pairs that are measured.
# make draw: draws the demo's scenes, trains its model and exports it again (about 13 minutes).
#
# The first use makes an environment in .venv, with uv if it is installed (it takes a third of pip's
# time), otherwise with pip. PYTHON= selects another Python, VENV= another folder,
# PADDLE=2.6.2 another version of Paddle than in requirements.txt, TESTS= only some tests, JOBS= the
# number of tests that run at the same time.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)
PADDLE ?=
VENV ?= .venv$(if $(PADDLE),-$(PADDLE))
TESTS ?=
# Some tests wait for a process or a disk, so one more than the processors.
JOBS ?= $(shell expr $$(nproc) + 1)
BENCH ?= summary start stages folder steady engines precisions memory
PAIRS ?= 9
BIN := $(VENV)/bin
# $(call install,venv) begins a command that installs packages into an environment.
UV ?= $(shell command -v uv)
install = $(if $(UV),$(UV) pip install --quiet --compile-bytecode --python $(1)/bin/python,\
	$(1)/bin/pip install --quiet --disable-pip-version-check)
# If a process crashes, pytest-xdist would start another one and then wait for ever. Without restarts
# it names the test that crashed.
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup --max-worker-restart=0
OLD_NUMPY := $(if $(filter 2.%,$(PADDLE)),'numpy<2')  # Paddle 2 crashes on numpy 2
ORACLE := paddleseg==2.8.0
MASKS := output/demo
MADE := bench/made

STRESS := $(BIN)/python -m pytest -s -q -m "stress or not stress"

.PHONY: demo test coverage test-gpu-config lint stress stress-slurm stress-container stress-hosts bench draw clean

demo: $(VENV)/ready-to-run
	@mkdir -p $(dir $(MASKS))
	@$(BIN)/python infer.py --config demo/model/deploy.yaml --image_path demo/images \
		--label_path demo/labels --save_dir $(MASKS) --report $(MASKS).jsonl --device cpu
	@$(BIN)/python -m paddleseg_infer.gallery $(MASKS).jsonl

test: $(VENV)/ready-to-test
	$(PYTEST) $(TESTS)

coverage: $(VENV)/ready-to-test
	$(PYTEST) --cov --cov-report=term $(TESTS)

test-gpu-config: .venv-gpu/ready
	.venv-gpu/bin/python -m pytest -q tests/engines/test_gpu_config.py

.venv-gpu/ready: requirements/gpu.txt requirements/dev.txt
	@echo "Installing requirements/gpu.txt into .venv-gpu (only the first time; 0.8 GB)"
	@$(PYTHON) -m venv .venv-gpu
	@$(call install,.venv-gpu) -r requirements/gpu.txt \
		"$$(sed -n 's/^\(pytest[=<>][^ ]*\).*/\1/p' requirements/dev.txt)"
	@$(call install,.venv-gpu) --no-deps --editable .
	@touch $@

lint: $(VENV)/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

stress: $(VENV)/ready-to-test
	$(if $(MODELS),$(BIN)/python -W ignore -m tests.compare --models "$(MODELS)" --images "$(IMAGES)",\
		$(BIN)/python -W ignore -m tests.stress)

stress-slurm: $(VENV)/ready-to-test
	$(STRESS) tests/clusters/test_slurm.py

stress-container: $(VENV)/ready-to-test
	$(STRESS) tests/clusters/test_container.py

stress-hosts: $(VENV)/ready-to-test
	$(STRESS) tests/clusters/test_hosts.py

bench: $(VENV)/ready-to-test $(MADE)/ready .venv-paddlex/ready
	@$(call install,$(VENV)) -r requirements/bench.txt
	@for script in $(BENCH); do \
		$(BIN)/python -W ignore -m bench.$$script --made $(MADE) --pairs $(PAIRS) \
			--paddlex .venv-paddlex/bin/python || exit 1; \
	done

# With Paddle 2.6.2, because newer versions can't export these networks as a pdmodel for any size.
$(MADE)/ready: bench/make.py
	@$(MAKE) --no-print-directory .venv-2.6.2/ready-to-test PADDLE=2.6.2
	@rm -rf $(MADE)
	.venv-2.6.2/bin/python -m bench.make $(MADE)
	@touch $@

.venv-paddlex/ready:
	@$(PYTHON) -m venv .venv-paddlex
	@$(call install,.venv-paddlex) \
		paddlepaddle==3.2.2 "paddlex[base]==3.3.0" "langchain<0.4" "langchain-community<0.4"
	@touch $@

draw: $(VENV)/ready-to-test
	$(BIN)/python -W ignore -m demo.make_demo

$(VENV)/ready-to-run: requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11, 3.12 or 3.13 was not found: install one of them"; exit 2; }
	@echo "Installing requirements.txt into $(VENV) (only the first time; about 0.25 GB)"
	@$(PYTHON) -m venv $(VENV)
	@sed '$(if $(PADDLE),s/^paddlepaddle==[^ ]*/paddlepaddle==$(PADDLE)/)' $< > $(VENV)/requirements.txt
	@$(call install,$(VENV)) -r $(VENV)/requirements.txt $(OLD_NUMPY)
	@touch $@

$(VENV)/ready-to-test: $(VENV)/ready-to-run requirements/dev.txt requirements/geo.txt requirements/ray.txt \
		pyproject.toml
	@echo "Installing requirements/dev.txt into $(VENV) (only the first time)"
	@$(call install,$(VENV)) -r requirements/dev.txt \
		$(if $(PADDLE),,-r requirements/ray.txt)
	@$(call install,$(VENV)) --no-deps $(ORACLE) --editable .
	@touch $@

clean:
	rm -rf .venv* .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis output/demo \
		output/demo.jsonl \
		bench/made build *.egg-info __pycache__ */__pycache__
