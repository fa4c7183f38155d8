import runpy
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))
SHOWN = {
    "01_quick_start": lambda names: names["forecast"].mask.any(),
    "02_the_data_room": lambda names: abs(names["coverage"] - 0.9) < 0.02,
    "03_tails_and_tests": lambda names: names["count"]["Student-t"]["Kupiec proportion of failures"].endswith("-> 0"),
    "04_graph_portfolios": lambda names: (
        (names["table"]["violations"] == 0).all()
        and (names["table"]["volatility"].iloc[1:] < 0.9 * names["table"]["volatility"].iloc[0]).all()
    ),
    "05_bayesian_uncertainty": lambda names: (
        names["table"].loc[("Laplace", "new"), "epistemic share"]
        > names["table"].loc[("Laplace", "with its past"), "epistemic share"]
        and abs(names["shares"]["calibrated"].mean() - 0.01) < abs(names["shares"]["RiskMetrics"].mean() - 0.01)
    ),
}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, monkeypatch):
    mpl.use("Agg")
    monkeypatch.setenv("QTORCH_NOTEBOOK_EPOCHS", "1")
    names = runpy.run_path(str(notebook))
    assert SHOWN[notebook.stem](names)
    assert plt.get_fignums()
    plt.close("all")
