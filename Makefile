# Two commands: `make demo` and `make test`. Either sets up .venv first, from the lock file.
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)

.PHONY: demo test test-slow lint format lock bench bench-refine clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       set up .venv, then run the main job offline on the embedded scenes"
	@echo "make test       set up .venv, then run the tests (make test-slow: the slow ones)"
	@echo "make lint       lint, format and type checks"
	@echo "make bench      the benchmarks (docs/performance.md)"
	@echo "make bench-refine  labels of drawn scenes before and after refinement (docs/refine.md; takes hours)"
	@echo "make lock       resolve the dependencies anew into requirements.lock"

.uv/bin/uv:
	@echo "uv is not installed: putting it into .uv"
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv==$(UV_VERSION)

.venv/ready: requirements.lock pyproject.toml | $(filter .uv/bin/uv,$(UV))
	@echo "setting up .venv with everything in requirements.lock (6.4 GB on Linux)"
	$(UV) venv --quiet --no-python-downloads --allow-existing --python $(PYTHON) .venv
	$(UV) pip install --quiet --python .venv --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python .venv --no-deps --editable .
	@touch $@

demo: .venv/ready
	.venv/bin/fde demo

# Files side by side on two cores, for the tests of one file share what they build; clusters one after the other, for
# Ray gives its processes fixed times to start.
test: .venv/ready
	.venv/bin/python -m pytest -n 2 --dist loadfile -m "not slow and not ray"
	.venv/bin/python -m pytest -m "ray and not slow"

test-slow: .venv/ready
	.venv/bin/python -m pytest -m slow

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/ready
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/ready
	.venv/bin/python benchmarks/memory.py

bench-refine: .venv/ready
	.venv/bin/python benchmarks/refine.py run --noise independent class systematic

lock: | $(filter .uv/bin/uv,$(UV))
	$(UV) pip compile pyproject.toml --all-extras --group dev --universal --no-emit-index-url --no-annotate \
	  --generate-hashes --upgrade --custom-compile-command "make lock" --quiet -o requirements.lock

clean:
	rm -rf .venv .uv demo
