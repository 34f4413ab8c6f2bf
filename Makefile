# Every target sets up its own virtual environment when there is none. Use another with: make VENV=/path test
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test lint docs bench fuzz crash supply clean

demo: $(READY)
	$(BIN)/doorward demo

# Modules are compiled when they are first imported, and kept: pip would compile ten times as many as are used.
test: $(READY)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks

# Every command killed before every operation on files; an hour.
crash: $(READY)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks crash_points

# Other damages with: make fuzz SEED=1 SECONDS=600
SEED ?= 0
SECONDS ?= 60

fuzz: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks fuzz --seconds $(SECONDS) --seed $(SEED)

# Nothing is installed whose hash is not listed. LOCKED= (empty) takes the versions alone, for other builds of torch.
LOCKED ?= supply/locked.txt
PIP = $(BIN)/python -m pip install --quiet --no-compile

$(READY): pyproject.toml constraints.txt $(LOCKED)
	test -x $(BIN)/python || python3 -m venv $(VENV)
ifeq ($(LOCKED),)
	$(PIP) --constraint constraints.txt --editable '.[dev]'
else
	$(PIP) --require-hashes --no-deps -r supply/locked-build.txt
	$(PIP) --require-hashes --no-deps --no-build-isolation -r $(LOCKED)
	$(PIP) --no-deps --no-build-isolation --editable .
endif
	touch $(READY)

# Hashes and the list of parts, made anew after a change of constraints.txt. Needs the package index.
supply:
	python3 -m venv build/supply
	build/supply/bin/python -m pip install --quiet uv==0.13.9 cyclonedx-bom==7.5.0
	build/supply/bin/python supply/lock.py

clean:
	rm -rf $(VENV) build *.egg-info
