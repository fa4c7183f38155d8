"""What the page about schedulers shows, run by the schedulers themselves, each in an environment of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from qtorch.configuration import plain
from tests.nightly.rows_of_nights import make_job

pytestmark = pytest.mark.schedulers
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "schedule.md"


def shown(section: str, language: str) -> str:
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL).group(1)
    return re.search(rf"```{language}\n(.*?)```", text, flags=re.DOTALL).group(1)


def tool(name: str) -> str:
    """The interpreter of a scheduler's environment."""
    python = os.environ.get(f"QTORCH_{name.upper()}_PYTHON")
    if python is None:
        pytest.skip(f"{name} has an environment of its own: run by make test-schedulers")
    return python


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """A job's file, and the variables that the examples take."""
    job = make_job(tmp_path)
    given = {"data": {"path": "prices.parquet", "min_history": 40}, "output": "nights"}
    given |= {"model": {"encoder": job.model.encoder, "context": 8, "horizons": [1]}}
    given |= {"training": {"max_epochs": 1, "batches_per_epoch": 2, "batch_size": 8}}
    given |= {"risk": {key: plain(job)["risk"][key] for key in ("levels", "backtest_sessions", "scenario_sessions")}}
    (tmp_path / "nightly.yaml").write_text(yaml.safe_dump(given))
    command = tmp_path / "qtorch"
    command.write_text(f'#!/bin/sh\nexec env PYTHONPATH="{os.getcwd()}" "{sys.executable}" -m qtorch "$@"\n')
    command.chmod(0o755)
    return os.environ | {"RISK": str(tmp_path), "QTORCH": str(command), "QTORCH_CONFIG": str(tmp_path / "nightly.yaml")}


def run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout + ended.stderr


def forecasts(tmp_path: Path, day: str) -> pd.DataFrame:
    return pd.read_parquet(tmp_path / "nights" / f"as_of={day}" / "forecasts.parquet")


def test_the_line_of_cron(environment, tmp_path):
    line = shown("Cron", "sh")
    for day in ("2020-03-27", "2020-03-28"):  # a Friday, and a day on which there is nothing to do
        run(["sh", "-c", line.replace("$(date +%F)", day)], environment, tmp_path)
    first, second = map(json.loads, (tmp_path / "nights.jsonl").read_text().splitlines())
    assert (first["exit_code"], second["exit_code"]) == (0, 5)
    assert len(forecasts(tmp_path, "2020-03-27")) == 8
    assert "train or load" in (tmp_path / "nights.log").read_text()


def test_the_graph_of_airflow(environment, tmp_path):
    airflow = str(Path(tool("airflow")).with_name("airflow"))
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "nights.py").write_text(shown("Airflow", "python"))
    environment |= {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "false",
    }
    run([airflow, "db", "migrate"], environment, tmp_path)
    said = run([airflow, "dags", "test", "qtorch_nightly", "2020-03-27"], environment, tmp_path)
    assert '"outcome": "done"' in said
    assert len(forecasts(tmp_path, "2020-03-27")) == 8
    assert "skipped" in run([airflow, "dags", "test", "qtorch_nightly", "2020-03-28"], environment, tmp_path).lower()


def test_the_partitions_of_dagster(environment, tmp_path):
    dagster = str(Path(tool("dagster")).with_name("dagster"))
    (tmp_path / "nights.py").write_text(shown("Dagster", "python"))
    one = [dagster, "asset", "materialize", "-f", "nights.py", "--select", "nightly_risk", "--partition"]
    assert "RUN_SUCCESS" in run([*one, "2020-03-27"], environment, tmp_path)
    assert len(forecasts(tmp_path, "2020-03-27")) == 8
    assert "RUN_SUCCESS" in run([*one, "2020-03-28"], environment, tmp_path)
    refused = subprocess.run([*one, "2020-03-31"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "the data end on 2020-03-27" in refused.stdout + refused.stderr
