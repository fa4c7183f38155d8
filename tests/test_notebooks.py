import re
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
    return (
        0.006 < names["share"] < 0.016
        and names["low"] < names["share"] < names["high"]
        and (names["table"][10] > names["table"][1]).all()
    )


def misaligned_markets(names):
    known = {exchange: f"{session:%Y-%m-%d}" for exchange, session in names["known"].items()}
    today = {exchange for exchange, session in known.items() if session == "2020-11-24"}
    return (
        abs(names["coverage"] - 0.9) < 0.02
        and known["XNYS"] == "2020-11-23"
        and today == {"XLON", "XTKS", "XHKG", "XTAE"}
    )


def risk_forecast(names):
    beyond, book = names["table"].loc["beyond the 99 % VaR, %"], names["book_table"]
    return (
        book["days beyond"].idxmax() == "RiskMetrics"
        and beyond["RiskMetrics"] > 1.3
        and (beyond[["GARCH", "network"]] < beyond["RiskMetrics"]).all()
    )


def flows_and_tails(names):
    far, years = names["table"]["0.01%"], names["joint_table"]["years between crashes"]
    scores = names["joint_table"]["log score"]
    return (
        far["normal"] > 10
        and (far.drop("normal") < 4).all()
        and years["normal copula"] > 5 * years["seen since 2010"]
        and not names["far_table"].loc["normal", "holds"]
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
    earned, differences = names["table"]["return a year"], names["differences"]
    at_open = {name: abs(differences[name, "this close - next open"].estimate) for name in ("NASDAQ", "SP500")}
    return (
        names["stale"]["SP500"] > 0.9
        and names["stale"]["NASDAQ"] == 0
        and at_open["SP500"] < 0.01 < at_open["NASDAQ"]
        and earned["SP500", "this close"] > earned["SP500", "next close"]
        and names["refusal"].startswith("look-ahead")
        and names["clean"].ok
        and not names["leaky"].ok
        and names["saved"].upper < 0
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


# What the committed outputs, of the notebooks in full, say in print: a pattern, and what must hold of its numbers.
NUMBER = r"([+-]?[\d.]+)"
PRINTED = {
    "01_quick_start": [(rf"interval {NUMBER}% to {NUMBER}%: 1 % is inside", lambda low, high: low < 1 < high)],
    "03_risk_forecast_and_backtest": [
        (rf"than GARCH's: .* corrected {NUMBER}", lambda p: p < 0.05),
        (rf"RiskMetrics: .* {NUMBER} of 20 rejected", lambda rejected: rejected > 10),
        (r"Corrected, no stock is rejected under GARCH and network\.", lambda: True),
        (r"passes Kupiec's test under none of them", lambda: True),
    ],
    "04_flows_and_tails": [
        (rf"one day in ten thousand came {NUMBER} times", lambda times: times > 20),
        (r"as far as so few losses tell: spliced, flow\.", lambda: True),
    ],
    "05_graph_portfolios": [
        (rf"that of equal weight: \S+ \({NUMBER} to {NUMBER}\)", lambda low, high: low < high < 0),
        (rf"that of Ledoit-Wolf: \S+ \({NUMBER} to {NUMBER}\)", lambda low, high: low < high < 0),
    ],
    "06_bayesian_uncertainty": [
        (rf"Laplace: a wider band for {NUMBER} of {NUMBER} as new", lambda wider, all_of_them: wider == all_of_them),
        (rf"is {NUMBER}% of it wide .* and {NUMBER}% for the same stock as a new", lambda known, new: known < new),
    ],
    "07_in_a_backtesting_harness": [
        (rf"NASDAQ: .*Stale opens: {NUMBER}%", lambda share: share == 0),
        (rf"SP500: .*Stale opens: {NUMBER}%", lambda share: share > 30),
        (rf"vectorbt: the ledger's equity, to {NUMBER}e{NUMBER} ", lambda gap, power: gap * 10**power < 1e-8),
        (rf"(?m)^bt: the ledger's equity, to {NUMBER}e{NUMBER} ", lambda gap, power: gap * 10**power < 1e-8),
    ],
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
    printed = "".join(output.get("text", "") for output in outputs)
    assert "is not installed" not in printed
    for pattern, holds in PRINTED.get(source.stem, []):
        found = re.search(pattern, printed)
        assert found, f"{source.name} does not print {pattern!r}"
        assert holds(*map(float, found.groups())), found[0]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert pair.stat().st_size < MOST_BYTES
