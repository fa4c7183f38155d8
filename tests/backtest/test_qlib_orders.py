"""Orders that qlib would fill otherwise than the ledger, refused before it is imported."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from qtorch.backtest.adapters import to_qlib
from qtorch.data import DataError
from qtorch.portfolio import Costs
from tests.backtest.test_adapters import orders

NAN = np.nan


def test_what_qlib_can_not_charge_or_date_is_refused():
    with pytest.raises(ValueError, match=r"costs.*Ledger"):
        to_qlib(orders([0.5, NAN], [1.0, 1.0]), Costs(cash=1e-4))
    half = orders([0.5, NAN], [1.0, 1.0])
    with pytest.raises(DataError, match="time of day"):
        to_qlib(orders([0.5, NAN], [1.0, 1.0], half.dates + np.timedelta64(9, "h")))


def test_qlib_is_not_asked_to_sell_short_or_to_borrow():
    with pytest.raises(DataError, match="negative weights: A 2024-01-02"):
        to_qlib(orders([0.5, -0.1, NAN], [1.0, 1.0, 1.0]))
    with pytest.raises(DataError, match=r"2024-01-02.*0\.25 of the equity more.*\(2 dates in all\), and qlib borrows"):
        to_qlib(orders([0.5, 1.25, NAN], [1.0, 1.0, 1.0]))


@pytest.mark.parametrize("name", ["cash", "cash_delay", "now_account_value"])
def test_names_of_qlibs_own_account_are_refused(name):
    with pytest.raises(DataError, match=f"assets named {name}, as qlib names parts of its account"):
        to_qlib(replace(orders([0.5, NAN], [1.0, 1.0]), assets=(name,)))


def test_a_position_is_sold_whole_or_in_part():
    with pytest.raises(DataError, match="sold but for less than 1e-5 of the position: A 2024-01-02"):
        to_qlib(orders([0.5, 1e-6, NAN], [1.0, 1.0, 1.0]))


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "qlib.config", None)
    with pytest.raises(ImportError, match=r"pip install 'qtorch-finance\[qlib\]'"):
        to_qlib(orders([0.5, NAN], [1.0, 1.0]))
    with pytest.raises(ImportError, match=r"pip install 'qtorch-finance\[qlib\]'"):
        from qtorch.backtest.adapters import QlibForecaster  # noqa: F401
