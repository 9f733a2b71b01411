# Each target makes what it needs, the virtual environment first.
VENV ?= .venv
RUN ?= runs/demo
KITS ?= provisioning/kits
POC ?= runs/poc
BIN := $(VENV)/bin

.PHONY: demo test test-all check format bench poc wheel wheels kits clean

demo: $(VENV)/ready  ## federated abdomen_gin on phantoms, both sites at once, then its report
	$(BIN)/fedmodal simulate jobs/abdomen_gin -w $(RUN) -n 2 -t 2

test: $(VENV)/ready  ## the tests, but for those that take minutes each
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/ready  ## every test
	$(BIN)/python -m pytest

check: $(VENV)/ready-dev  ## format, lint, types, and jobs as defined
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/fedmodal jobs

format: $(VENV)/ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/ready  ## CT to MRI on the real sample images, without and with GIN and IPA
	$(BIN)/python benchmarks/cross_modality.py

poc: $(VENV)/ready  ## every site of provisioning/project.yml on this machine, over TLS, from start to report
	$(BIN)/python poc/poc.py run --folder $(POC)

wheel: $(VENV)/ready  ## the package as it goes into startup kits
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir provisioning/wheels .

wheels: $(VENV)/ready  ## the same with all it needs, for sites without a network
	$(BIN)/python -m pip wheel --quiet --wheel-dir provisioning/wheels -r requirements.txt

kits: wheel  ## a startup kit for everyone in provisioning/project.yml
	$(BIN)/nvflare provision -p provisioning/project.yml -w $(KITS)

$(VENV)/ready: requirements.txt pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/ready-dev: requirements-dev.txt $(VENV)/ready
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
