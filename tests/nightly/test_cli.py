import sys

import pandas as pd
import pytest
import yaml

from qtorch.cli import main


@pytest.fixture
def config(night, tmp_path):
    """The YAML of the night that went well, with relative paths, beside its data."""
    job, _ = night
    prices = pd.read_parquet(job.data.path)
    prices.to_parquet(tmp_path / "prices.parquet")
    (tmp_path / "positions.csv").write_text("asset,weight\nAAPL,0.5\nEURUSD,0.5\n")
    text = {
        "data": {"path": "prices.parquet"},
        "positions": "positions.csv",
        "model": {"encoder": job.model.encoder, "context": 16, "horizons": [1, 5]},
        "training": {"max_epochs": 1, "batches_per_epoch": 2, "batch_size": 8, "validation_sessions": 100},
        "risk": {"backtest_sessions": 120, "scenario_sessions": 150},
        "output": "nights",
    }
    path = tmp_path / "nightly.yaml"
    path.write_text(yaml.safe_dump(text))
    return path


def call(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        main(["nightly", *map(str, arguments)])
    return end.value.code


def test_paths_are_relative_to_the_file_and_of_options_to_the_shell(config, tmp_path, monkeypatch, capsys):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert call("--config", config) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "nights" / "as_of=2021-12-31" / "report.html").exists()
    for words in ("train or load", "forecasts ", "report ", str(tmp_path / "nights")):
        assert words in out
    section = '{"allocator": {"class_path": "qtorch.backtest.EqualWeight"}, "constraints": {"upper": 0.5}}'
    assert call("--config", config, "--output", "mine", "--as-of", "2021-12-30", "--allocation", section) == 0
    assert (here / "mine" / "as_of=2021-12-30" / "forecasts.parquet").exists()
    assert (here / "mine" / "as_of=2021-12-30" / "allocation.parquet").exists()


def test_each_end_has_its_code_and_says_why(config, capsys, tmp_path):
    def said(code: int, *arguments) -> str:
        assert call("--config", config, *arguments) == code
        return capsys.readouterr().err

    assert "2021-12-25 (Saturday) is a session of none" in said(5, "--as-of", "2021-12-25")
    assert "before the data begin" in said(4, "--as-of", "2001-01-02")
    assert "the data end on 2021-12-31" in said(4, "--as-of", "2022-02-01")
    (tmp_path / "positions.csv").write_text("asset,weight\nNOPE,1\n")
    assert "not in the data: NOPE (row 0)" in said(4)
    (tmp_path / "positions.csv").write_text("asset,weight\nSP500,1\nAAPL,1\n")
    assert "no forecast for SP500: held, but without a price" in said(3)
    assert "no such file" in said(4, "--data.path", "absent.parquet")
    assert "soon" in said(2, "--as-of", "soon")
    assert "colour" in said(2, "--training.colour", "3")
    assert "give --engine ray too" in said(2, "--address", "auto")
    assert "give --engine ray too" in said(2, "--task-memory", "2", "--workers", "2")
    assert "this process alone" in said(2, "--engine", "local", "--workers", "2")
    assert "workers=0: give a number of processes" in said(2, "--workers", "0")
    assert "horizons must begin with 1" in said(2, "--model.horizons", "[5]")
    assert "outside the allowed packages" in said(2, "--model.head", '{"class_path": "os.path.join"}')
    section = '{"allocator": {"class_path": "qtorch.backtest.EqualWeight"}, "constraints": {"upper": 0.1}}'
    (tmp_path / "positions.csv").write_text("asset,weight\nAAPL,1\n")
    assert "no weights keep to allocation.constraints" in said(4, "--allocation", section)
    assert "give its labels" in said(2, "--allocation", section.replace('"upper": 0.1', '"caps": {"kind": 0.5}'))
    saved = {"class_path": "qtorch.deploy.SavedAllocator", "init_args": {"path": "models/mine"}}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"allocation": {"allocator": saved}}))
    assert f"{tmp_path / 'models' / 'mine' / 'model.json'}: not readable" in said(2)


def test_help_tells_the_exit_codes(capsys):
    assert call("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "exit codes: 0 done 1 error 2 unusable arguments or configuration 3 done, but" in text
    assert "3 done, but some assets have no forecast" in text


def test_no_progress_bar_when_the_output_is_no_terminal(config, capsys):
    assert not sys.stderr.isatty()
    assert call("--config", config) == 0
    seen = capsys.readouterr()
    assert "Epoch" not in seen.out + seen.err
