# Everything runs in .venv, which each target sets up if need be; PYTHON picks the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: nightly test test-slow test-harness test-deploy test-store test-schedulers stubs gpu lint format sample notebooks docs docs-serve docs-test readme bench-loader bench-patch bench-flows bench-graph bench-deploy clean

nightly: .venv/run
	$(BIN)/qtorch nightly --config data/nightly.yaml

# A process for each core, each on one thread; a file's tests stay together, because they share what is dear to make.
test: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-slow: .venv/test
	$(BIN)/python -m pytest -m slow

# The same orders through our ledger and other libraries' backtests, in environments of their own; zipline needs pandas 2.
test-harness: .venv-harness/done .venv-harness-zipline/done
	.venv-harness/bin/python -m pytest -m harness tests --ignore=tests/harness/test_zipline.py
	.venv-harness-zipline/bin/python -m pytest -m harness tests/harness/test_zipline.py

.venv-harness/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-harness
	grep -v '^pyarrow==' constraints.txt > .venv-harness/constraints.txt
	.venv-harness/bin/python -m pip install --quiet -c .venv-harness/constraints.txt torch==2.13.0
	.venv-harness/bin/python -m pip install --quiet -c .venv-harness/constraints.txt -e '.[test,harness]'
	touch $@

.venv-harness-zipline/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-harness-zipline
	grep -v '^pandas==' constraints.txt > .venv-harness-zipline/constraints.txt
	.venv-harness-zipline/bin/python -m pip install --quiet -c .venv-harness-zipline/constraints.txt torch==2.13.0
	.venv-harness-zipline/bin/python -m pip install --quiet -c .venv-harness-zipline/constraints.txt -e '.[test,harness-zipline]'
	touch $@

# ONNX Runtime, ExecuTorch, CoreML's converter, the Hub's format, clusters of Ray and a server, asked by NVIDIA's client from an
# environment of its own, because that wants an older protobuf; and the pages that need these.
test-deploy: .venv-deploy/done .venv-triton/done
	OMP_NUM_THREADS=1 QTORCH_TRITON_PYTHON=$(CURDIR)/.venv-triton/bin/python .venv-deploy/bin/python -m pytest -m deploy tests
	OMP_NUM_THREADS=1 .venv-deploy/bin/python -m pytest -m slow tests/test_docs.py -k 'compile or edge or export or scale-out or serve or share'

.venv-deploy/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-deploy
	.venv-deploy/bin/python -m pip install --quiet -c constraints.txt torch==2.13.0
	.venv-deploy/bin/python -m pip install --quiet -c constraints.txt -e '.[test,deploy]'
	touch $@

.venv-triton/done: Makefile
	$(PYTHON) -m venv .venv-triton
	.venv-triton/bin/python -m pip install --quiet 'tritonclient[http,grpc]==2.73.0'
	touch $@

# Nights in an S3-compatible store, in SQLite and in a PostgreSQL of Debian's, which the tests start; in an environment of
# its own, because botocore wants an older dateutil.
test-store: .venv-store/done
	test -n "$$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null)" || { apt-get update -qq && apt-get install -y -qq postgresql; }
	.venv-store/bin/python -m pytest -m store tests

.venv-store/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-store
	grep -v '^python-dateutil==' constraints.txt > .venv-store/constraints.txt
	.venv-store/bin/python -m pip install --quiet -c .venv-store/constraints.txt torch==2.13.0
	.venv-store/bin/python -m pip install --quiet -c .venv-store/constraints.txt -e '.[test,store]'
	touch $@

# The examples for cron, Airflow and Dagster, run by these: in environments of their own, from which they call the command.
test-schedulers: .venv/test .venv-airflow/done .venv-dagster/done
	QTORCH_AIRFLOW_PYTHON=$(CURDIR)/.venv-airflow/bin/python QTORCH_DAGSTER_PYTHON=$(CURDIR)/.venv-dagster/bin/python \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m schedulers tests

.venv-airflow/done .venv-dagster/done: .venv-%/done: Makefile
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet $(scheduler-$*)
	touch $@

scheduler-airflow := apache-airflow==3.3.2 apache-airflow-providers-standard==1.21.0
scheduler-dagster := dagster==1.13.29

# The messages of the inference protocol, from inference.proto.
stubs: .venv-deploy/done
	.venv-deploy/bin/python -m qtorch.deploy.server.stubs

# On a machine with a GPU and torch installed: make gpu GPU_PYTHON=python3 uses that interpreter as it is.
GPU_PYTHON ?= $(if $(wildcard .venv/test),$(BIN)/python,python3)
gpu:
	PYTHONPATH=. $(GPU_PYTHON) -m pytest -m gpu tests
	PYTHONPATH=. $(GPU_PYTHON) benchmarks/gpu.py

lint: .venv/lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

sample: .venv/sample
	$(BIN)/python data/build_sample.py

# Executes the notebooks' sources and writes them, with outputs, beside them; the last with other libraries' backtests.
notebooks: .venv/test .venv-harness/done
	$(BIN)/python notebooks/execute.py notebooks/0[1-6]*.py
	.venv-harness/bin/python notebooks/execute.py notebooks/07*.py

# The documentation site in out/site, without a warning; NO_MKDOCS_2_WARNING silences an advertisement.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# Runs the Python of every page.
docs-test: .venv/test
	$(BIN)/python -m pytest -m 'slow or not slow' tests/test_docs.py tests/test_readme.py

# The pictures and figures of the README.
readme: .venv/test
	QTORCH_FIGURE=docs/fan_chart.png MPLBACKEND=Agg $(BIN)/python notebooks/01_quick_start.py
	QTORCH_FIGURE=docs/states.png MPLBACKEND=Agg $(BIN)/python notebooks/02_misaligned_markets.py
	QTORCH_FIGURE=docs/backtests.png MPLBACKEND=Agg $(BIN)/python notebooks/03_risk_forecast_and_backtest.py
	QTORCH_FIGURE=docs/portfolio.png MPLBACKEND=Agg $(BIN)/python notebooks/05_graph_portfolios.py
	QTORCH_FIGURE=docs/uncertainty.png MPLBACKEND=Agg $(BIN)/python notebooks/06_bayesian_uncertainty.py
	$(BIN)/python benchmarks/risk_accuracy.py
	$(BIN)/python benchmarks/import_time.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

.venv/test .venv/lint .venv/sample .venv/docs: .venv/%: .venv/run
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

# Models in other runtimes beside eager mode, and the server under load.
bench-deploy: .venv-deploy/done
	PYTHONPATH=. OMP_NUM_THREADS=1 .venv-deploy/bin/python benchmarks/deploy.py
	PYTHONPATH=. .venv-deploy/bin/python benchmarks/server.py --soak 300

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
	rm -rf .venv .venv-harness .venv-harness-zipline .venv-deploy .venv-triton .venv-store .venv-airflow .venv-dagster .venv-bench .venv-bench-gluonts out dist
