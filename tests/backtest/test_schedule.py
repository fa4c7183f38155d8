"""Rebalances fall on the last rows of weeks and months."""

import pandas as pd
import pytest

from qtorch.backtest import rebalance_rows


@pytest.mark.parametrize(("rebalance", "key"), [("month", "%Y-%m"), ("week", "%G-%V")])
def test_the_last_row_of_each_period(rebalance, key):
    dates = pd.bdate_range("2018-11-05", "2020-03-20").delete([40, 41, 100])
    rows = rebalance_rows(dates, rebalance, 3, len(dates) - 1)
    labels = dates.strftime(key)
    expected = [3] + [i for i in range(4, len(dates) - 1) if labels[i] != labels[i + 1]]
    assert rows.tolist() == expected


def test_a_number_of_rows():
    assert rebalance_rows(pd.bdate_range("2020-01-01", periods=30), 7, 2, 20).tolist() == [2, 9, 16]


@pytest.mark.parametrize("rebalance", [0, "day"])
def test_other_schedules_are_refused(rebalance):
    from jaxtyping import TypeCheckError

    with pytest.raises((ValueError, TypeCheckError)):
        rebalance_rows(pd.bdate_range("2020-01-01", periods=30), rebalance, 0, 9)
