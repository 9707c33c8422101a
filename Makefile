.PHONY: search gpu test stress mutants clean

PYTHON ?= python3
BIN := .venv/bin

# A real search on the embedded digits: 4 minutes at most on two CPU cores.
search: .venv/installed
	$(BIN)/python train_search.py --set digits --layers 5 --init_channels 8 --pop_size 8 --epochs 6 --batch_size 64 --no-cutout

# Does everything work on the GPU here, and how fast? One page of Markdown in runs/.
gpu: .venv/installed
	$(BIN)/python benchmarks/gpu_check.py

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q -n auto --dist worksteal

stress: .venv/installed-dev
	$(BIN)/python -m pytest -q -m stress

# Do the tests see mistakes? Some twenty minutes on two CPU cores.
mutants: .venv/installed-dev
	$(BIN)/python tests/mutants.py

.venv/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, for instance: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed tests/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

clean:
	rm -rf .venv
