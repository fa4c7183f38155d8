"""A market of three exchange-listed assets, of which one closes alone, one comes late and one is delisted."""

import numpy as np
import pandas as pd
import pytest

from qtorch.data import Panel
from tests.conftest import make_prices


@pytest.fixture(scope="session")
def calm() -> Panel:
    """Four assets that are always open."""
    return Panel.from_frame(make_prices(dict.fromkeys("ABCD", "XNYS"), "2019-01-02", "2019-12-31"))


@pytest.fixture(scope="session")
def busy() -> pd.DataFrame:
    """E is closed on other days; NEW begins in June; OLD ends on 16 August."""
    frame = make_prices(
        {"A": "XNYS", "B": "XNYS", "NEW": "XNYS", "OLD": "XNYS", "E": "XECB"}, "2019-01-02", "2019-12-31"
    )
    late = (frame["asset"] == "NEW") & (frame["date"] < "2019-06-03")
    over = (frame["asset"] == "OLD") & (frame["date"] > "2019-08-16")
    return frame[~late & ~over]


@pytest.fixture(scope="session")
def changing(busy) -> Panel:
    return Panel.from_frame(busy, delisted={"OLD": "2019-08-16"})


@pytest.fixture(scope="session")
def stocks(sample) -> Panel:
    """The sample's 20 stocks, with three years before 2015."""
    them = sample[(sample["exchange"] == "XNYS") & ~sample["asset"].isin(["SP500", "NASDAQ", "WTI"])]
    return Panel.from_frame(them.loc[them["date"] >= "2011-12-01", ["date", "asset", "exchange", "close"]])


def plain_ledger(returns: np.ndarray, targets: dict[int, np.ndarray], last: int, rate: float) -> tuple[np.ndarray, ...]:
    """Net returns, weights and turnovers in money: shares, cash, and no weights but at the end."""
    first = min(targets)
    value, cash, equity = np.zeros(returns.shape[1]), 1.0, 1.0
    net, held, traded = [], [], []
    for t in range(first, last):
        turnover = 0.0
        if t in targets:
            wanted = targets[t] * equity
            turnover = np.abs(wanted - value).sum()
            cash -= (wanted - value).sum() + rate * turnover
            value = wanted
        held.append(value / equity)
        traded.append(turnover / equity)
        value = value * (1 + returns[t + 1])
        net.append((value.sum() + cash) / equity - 1)
        equity = value.sum() + cash
    return np.array(net), np.array(held), np.array(traded)
