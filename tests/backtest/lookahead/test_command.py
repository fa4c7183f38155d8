"""`qtorch check`: exit codes, functions by name, saved models."""

import pytest
import torch

from qtorch import Forecaster, heads, models
from qtorch.cli import main
from qtorch.data import WindowSpec
from qtorch.deploy import save
from tests.backtest.lookahead.markets import market

HERE = "tests.backtest.lookahead.markets"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "prices.parquet"
    panel = market()
    panel.to_frame().to_parquet(path)
    return path


def call(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        main(["check", *map(str, arguments)])
    return end.value.code


def test_exit_codes_tell_what_was_found(data, capsys):
    few = ("--cuts", 2, "--starts", 1)
    assert call(f"{HERE}:momentum", "--data", data, *few) == 0
    assert capsys.readouterr().out.startswith("no look-ahead found: 2 cuts")
    assert call(f"{HERE}:rank_in_sample", "--data", data, *few, "--first", "2019-05-02", "--lag", 1) == 1
    out = capsys.readouterr().out
    assert "LOOK-AHEAD" in out
    assert "is another with other later rows: it knows the close of" in out


def test_arguments_that_cannot_be_used_are_named(data, capsys):
    def said(*arguments) -> str:
        assert call(*arguments) == 2
        return capsys.readouterr().err

    assert "nothing of the sort" in said("nothing of the sort", "--data", data)
    assert "has no 'absent'" in said(f"{HERE}:absent", "--data", data)
    assert "cannot import nowhere" in said("nowhere.at_all:f", "--data", data)
    assert "absent.parquet" in said(f"{HERE}:momentum", "--data", data.parent / "absent.parquet")
    assert "is not a date of this panel" in said(f"{HERE}:momentum", "--data", data, "--first", "2019-06-01")
    assert "torch.manual_seed" in said(f"{HERE}:random", "--data", data)
    text = said(f"{HERE}:broken", "--data", data)
    assert "KeyError: 'no such column'" in text
    assert "in broken" in text, "where it failed"


@pytest.mark.parametrize(
    ("line", "error"),
    [("1 / 0", "ZeroDivisionError"), ("raise SystemExit(1)", "SystemExit"), ("None.absent", "AttributeError")],
)
def test_a_module_that_fails_is_no_leak(data, tmp_path, monkeypatch, capsys, line, error):
    name = f"fails_by_{error}"
    (tmp_path / f"{name}.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    assert call(f"{name}:f", "--data", data) == 2
    text = capsys.readouterr().err
    assert f"cannot import {name}" in text
    assert error in text


def test_doubts_are_told_on_standard_error(data, capsys):
    assert call(f"{HERE}:constant", "--data", data, "--cuts", 1, "--starts", 0) == 0
    said = capsys.readouterr()
    assert "does the pipeline read the panel" in said.err
    assert said.out.startswith("no look-ahead found")
    assert said.out.count("\n") == 1


@pytest.mark.parametrize("name", ["leaves", "unreadable"])
def test_a_pipeline_that_fails_otherwise_is_no_leak(data, capsys, name):
    assert call(f"{HERE}:{name}", "--data", data) == 2
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert f"in {'leaves' if name == 'leaves' else 'min_history'}" in text, "where it failed"


def test_a_saved_model_is_checked(data, tmp_path, capsys):
    torch.manual_seed(0)
    spec = WindowSpec(8, (1,))
    model = Forecaster(models.Recurrent(len(spec.features), width=4), heads.StudentT(4, (1,)), spec)
    save(model, tmp_path / "model")
    assert call(tmp_path / "model", "--data", data, "--cuts", 2, "--starts", 0) == 0
    assert "no look-ahead found" in capsys.readouterr().out
    assert call("--help") == 0
    assert "exit codes: 0 no look-ahead found" in " ".join(capsys.readouterr().out.split())
