"""Our frames in quantstats, pyfolio and alphalens."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from qtorch.backtest import (
    Account,
    Ledger,
    Signals,
    daily_returns,
    entry_prices,
    factor,
    pyfolio_frames,
)
from qtorch.data import Panel
from qtorch.portfolio import Costs
from tests.harness.conftest import random_orders

pytestmark = [pytest.mark.harness, pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::FutureWarning")]

mpl.use("Agg")


@pytest.fixture(scope="module")
def account(world) -> Account:
    return Ledger(Costs(proportional=0.001), cash=1e6).run(random_orders(world, "next_open", "fill"))


def test_quantstats_compounds_to_the_equity(account, world, tmp_path: Path):
    import quantstats

    returns = daily_returns(account)
    assert float(quantstats.stats.comp(returns)) == pytest.approx(account.equity[-1] / 1e6 - 1, abs=1e-12)
    drawdown = (account.equity / np.maximum.accumulate(account.equity) - 1).min()
    assert float(quantstats.stats.max_drawdown(returns)) == pytest.approx(drawdown, abs=1e-9)
    hold = Signals.from_panel(world, pd.DataFrame(1.0, world.dates[:1], ["US2"]))
    benchmark = daily_returns(Ledger().run(hold.orders(world)))
    sheet = tmp_path / "sheet.html"
    quantstats.reports.html(returns, benchmark, output=str(sheet), title="Ledger")
    assert "Ledger" in sheet.read_text()


def test_pyfolio_finds_the_ledgers_figures(account):
    import pyfolio

    returns, positions, trades = pyfolio_frames(account)
    figures = pyfolio.timeseries.perf_stats(returns, positions=positions, transactions=trades)
    assert figures["Cumulative returns"] == pytest.approx(account.equity[-1] / 1e6 - 1, abs=1e-12)
    shares = pyfolio.pos.get_percent_alloc(positions)
    np.testing.assert_allclose(shares[list(account.assets)], account.weights, atol=1e-12)
    volumes = pyfolio.txn.get_txn_vol(trades)["txn_volume"].reindex(returns.index, fill_value=0.0)
    np.testing.assert_allclose(0.001 * volumes, account.costs, rtol=1e-9, atol=1e-9)


def test_pyfolio_draws_its_sheet(account):
    import matplotlib.pyplot as plt
    import pyfolio

    returns, positions, trades = pyfolio_frames(account)
    pyfolio.create_simple_tear_sheet(returns, positions, trades)
    trips = pyfolio.round_trips.extract_round_trips(trades)
    assert len(trips)
    plt.close("all")


def test_alphalens_pays_the_forward_return_from_the_first_fill(world):
    """Of a factor that knows each row's own return, and so the closes that it was made of."""
    from alphalens.performance import factor_information_coefficient, factor_returns
    from alphalens.utils import get_clean_factor_and_forward_returns

    own = pd.DataFrame(world.returns().numpy(), world.dates, world.assets).iloc[2:-12]
    signals = Signals.from_panel(world, own.where(world.mask.numpy()[2:-12]), fill="next_open")
    prices = entry_prices(signals, world)
    data = get_clean_factor_and_forward_returns(
        factor(signals), prices, periods=(1, 5), quantiles=None, bins=2, max_loss=0.3
    )
    one, five = data.columns[:2]
    for (date, asset), row in data.iterrows():
        t = world.row(date)
        fills = [first_open(world, t + k, asset) for k in (0, 1, 5)]
        np.testing.assert_allclose(row[[one, five]].astype(float), np.array(fills[1:]) / fills[0] - 1, rtol=1e-9)
    ic = factor_information_coefficient(data)
    expected = data.groupby(level="date")[["factor", one]].apply(lambda day: day.corr("spearman").iloc[0, 1])
    np.testing.assert_allclose(ic[one].dropna(), expected.dropna(), atol=1e-12)
    assert np.isfinite(factor_returns(data)[one]).all()


def first_open(world: Panel, t: int, asset: str) -> float:
    """The first open after row t was known, or what the asset left when it was delisted."""
    n = world.assets.index(asset)
    if asset == "OLD" and world.dates[t] >= pd.Timestamp("2019-08-09"):
        closes = world.close[:, n]
        return float(closes[~closes.isnan()][-1])
    opens = world.field("open")[t + 1 :, n]
    return float(opens[~opens.isnan()][0])
