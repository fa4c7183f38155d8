# Everything runs in .venv, which each target sets up if need be; PYTHON picks the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: nightly test test-slow test-harness gpu lint format sample notebooks readme bench-loader bench-patch bench-flows bench-graph clean

nightly: .venv/run
	$(BIN)/qtorch nightly --config data/nightly.yaml

# A process for each core, each on one thread; a file's tests stay together, because they share what is dear to make.
test: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-slow: .venv/test
	$(BIN)/python -m pytest -m slow

# The same orders through our ledger and other libraries' backtests, in an environment of its own.
test-harness: .venv-harness/done
	.venv-harness/bin/python -m pytest -m harness tests

.venv-harness/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-harness
	grep -v '^pyarrow==' constraints.txt > .venv-harness/constraints.txt
	.venv-harness/bin/python -m pip install --quiet -c .venv-harness/constraints.txt torch==2.13.0
	.venv-harness/bin/python -m pip install --quiet -c .venv-harness/constraints.txt -e '.[test,harness]'
	touch $@

# On a machine with a GPU and torch installed: make gpu GPU_PYTHON=python3 uses that interpreter as it is.
GPU_PYTHON ?= $(if $(wildcard .venv/test),$(BIN)/python,python3)
gpu:
	PYTHONPATH=. $(GPU_PYTHON) -m pytest -m gpu tests

lint: .venv/lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

sample: .venv/sample
	$(BIN)/python data/build_sample.py

notebooks: .venv/test
	for source in notebooks/*.py; do \
	  $(BIN)/jupytext --quiet --to ipynb $$source && $(BIN)/jupyter-execute --inplace $${source%.py}.ipynb || exit 1; \
	done

# The pictures and figures of the README.
readme: .venv/test
	QTORCH_FIGURE=docs/fan_chart.png MPLBACKEND=Agg $(BIN)/python notebooks/01_quick_start.py
	QTORCH_FIGURE=docs/states.png MPLBACKEND=Agg $(BIN)/python notebooks/02_the_data_room.py
	QTORCH_FIGURE=docs/backtests.png MPLBACKEND=Agg $(BIN)/python notebooks/03_tails_and_tests.py
	QTORCH_FIGURE=docs/portfolio.png MPLBACKEND=Agg $(BIN)/python notebooks/04_graph_portfolios.py
	QTORCH_FIGURE=docs/uncertainty.png MPLBACKEND=Agg $(BIN)/python notebooks/05_bayesian_uncertainty.py
	$(BIN)/python benchmarks/risk_accuracy.py
	$(BIN)/python benchmarks/import_time.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

.venv/test .venv/lint .venv/sample: .venv/%: .venv/run
	$(INSTALL) -e '.[$*]'
	touch $@

# Other libraries' loaders beside ours, in environments of their own; GluonTS needs an older pandas than this library.
bench-loader: .venv-bench/done .venv-bench-gluonts/done
	.venv-bench/bin/python benchmarks/loader.py --python .venv-bench-gluonts/bin/python

# Training steps of PatchTransformer beside other libraries' PatchTST, in the same environments.
bench-patch: .venv-bench/done .venv-bench-gluonts/done
	.venv-bench/bin/python benchmarks/patch_transformer.py --python .venv-bench-gluonts/bin/python

# Neural spline flows beside other libraries': time, and what they learn in equal steps.
bench-flows: .venv-bench/done
	PYTHONPATH=. .venv-bench/bin/python benchmarks/flows.py
	PYTHONPATH=. .venv-bench/bin/python benchmarks/flows.py --compile
	PYTHONPATH=. .venv-bench/bin/python benchmarks/flow_likelihood.py

# Graph layers beside PyTorch Geometric's: time and peak memory.
bench-graph: .venv-bench/done
	PYTHONPATH=. .venv-bench/bin/python benchmarks/graph.py

.venv-bench/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet -c constraints.txt torch==2.13.0
	.venv-bench/bin/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@

.venv-bench-gluonts/done: constraints.txt
	$(PYTHON) -m venv .venv-bench-gluonts
	grep -vE '^(pandas|toolz)==' constraints.txt > .venv-bench-gluonts/constraints.txt
	.venv-bench-gluonts/bin/python -m pip install --quiet -c .venv-bench-gluonts/constraints.txt torch==2.13.0
	.venv-bench-gluonts/bin/python -m pip install --quiet -c .venv-bench-gluonts/constraints.txt 'gluonts[torch]==0.17.0'
	touch $@

clean:
	rm -rf .venv .venv-harness .venv-bench .venv-bench-gluonts out dist
