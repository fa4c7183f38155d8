import runpy
from pathlib import Path

import matplotlib as mpl
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, monkeypatch):
    mpl.use("Agg")
    monkeypatch.setenv("QTORCH_NOTEBOOK_EPOCHS", "1")
    names = runpy.run_path(str(notebook))
    assert names["forecast"].mask.any()
