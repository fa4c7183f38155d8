import runpy
from pathlib import Path

import jupytext
import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.py"))
MOST_BYTES = 600_000


def quick_start(names):
    return 0.003 < names["share"] < 0.03 and (names["table"][10] > names["table"][1]).all()


def misaligned_markets(names):
    known = {exchange: f"{session:%Y-%m-%d}" for exchange, session in names["known"].items()}
    today = {exchange for exchange, session in known.items() if session == "2020-11-24"}
    return (
        abs(names["coverage"] - 0.9) < 0.02
        and known["XNYS"] == "2020-11-23"
        and today == {"XLON", "XTKS", "XHKG", "XTAE"}
    )


def risk_forecast(names):
    beyond = names["table"].loc["beyond the 99 % VaR, %"]
    return beyond["RiskMetrics"] > 1.3 and (beyond[["GARCH", "network"]] < beyond["RiskMetrics"]).all()


def flows_and_tails(names):
    far, years = names["table"]["0.01%"], names["joint_table"]["years between crashes"]
    scores = names["joint_table"]["log score"]
    return (
        far["normal"] > 10
        and (far.drop("normal") < 4).all()
        and years["normal copula"] > 5 * years["seen since 2010"]
        and (years[["Student-t copula", "neural spline flow"]] < 0.5 * years["normal copula"]).all()
        and (scores[["Student-t copula", "neural spline flow"]] < scores["normal copula"] - 0.1).all()
    )


def graph_portfolios(names):
    table = names["table"]
    least = table["volatility"].iloc[1:] < 0.9 * table["volatility"].iloc[0]
    return (table["violations"] == 0).all() and least.all()


def bayesian_uncertainty(names):
    share, beyond = names["table"]["epistemic share"], names["shares"]
    return share["Laplace", "new"] > share["Laplace", "with its past"] and abs(
        beyond["calibrated"].mean() - 0.01
    ) < abs(beyond["RiskMetrics"].mean() - 0.01)


def in_a_harness(names):
    earned = names["table"]["return a year"]
    return (
        earned["this close"] > earned["next open"] > earned["next close"]
        and names["refusal"].startswith("look-ahead")
        and names["clean"].ok
        and not names["leaky"].ok
        and names["volatilities"]["least CVaR"] < names["volatilities"]["equal weights"]
    )


SHOWN = {
    "01_quick_start": quick_start,
    "02_misaligned_markets": misaligned_markets,
    "03_risk_forecast_and_backtest": risk_forecast,
    "04_flows_and_tails": flows_and_tails,
    "05_graph_portfolios": graph_portfolios,
    "06_bayesian_uncertainty": bayesian_uncertainty,
    "07_in_a_backtesting_harness": in_a_harness,
}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_its_answer(notebook, monkeypatch):
    mpl.use("Agg")
    monkeypatch.setenv("QTORCH_NOTEBOOK_EPOCHS", "1")
    names = runpy.run_path(str(notebook))
    assert SHOWN[notebook.stem](names)
    assert plt.get_fignums()
    plt.close("all")


def cells_of(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_its_source_executed_from_top_to_bottom(source):
    pair = source.with_suffix(".ipynb")
    notebook = nbformat.read(pair, as_version=4)
    assert cells_of(notebook) == cells_of(jupytext.read(source)), f"{source.name} was changed: run make notebooks"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert pair.stat().st_size < MOST_BYTES
