# Everything a contributor needs. The environment is made on the first call and remade when its inputs change.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-lowest lint format clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/ready  ## train a translator of dates with attention, from nothing to a report
	$(BIN)/rnnzoo fit encoder_decoder/dates

test: .venv/ready lint  ## everything that must hold, in a few minutes
	$(BIN)/python -m pytest -n auto --maxprocesses 4

test-slow: .venv/ready test-lowest  ## the tests that take longer: every recipe, two processes, real data where it is at hand
	$(BIN)/python -m pytest -m slow --durations=10

.venv-lowest/ready: pyproject.toml tests/constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet -c tests/constraints-lowest.txt -e . pytest pytest-xdist
	touch $@

# Old packages warn of newer ones that they use, so warnings are no errors here.
test-lowest: .venv-lowest/ready  ## models, training and the command line with the oldest packages that are admitted
	.venv-lowest/bin/python -m pytest -n auto --maxprocesses 4 -o filterwarnings=default tests/models tests/callbacks tests/cli

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-lowest build dist .pytest_cache .ruff_cache .mypy_cache
