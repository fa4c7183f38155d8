"""A run's money, what an allocator sees, and markets that close, list and delist."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.backtest import EqualWeight, InverseVolatility, WalkForward, summary
from qtorch.data import DataError, Panel
from qtorch.portfolio import Constraints, Costs
from tests.backtest.conftest import plain_ledger


class Chasing:
    """Weights by the last returns, and a record of what it was shown."""

    def __init__(self, wanted: float = 1.0) -> None:
        self.seen, self.holdings, self.answers, self.wanted = [], [], [], wanted

    def __call__(self, panel, row, holdings):
        assert row == len(panel.dates) - 1
        self.seen.append(panel.dates[-1])
        self.holdings.append(holdings)
        score = torch.nan_to_num(panel.returns()[-5:], nan=0.0).sum(0)
        self.answers.append(self.wanted * (30 * score).softmax(0))
        return self.answers[-1]


@pytest.mark.parametrize("lag", [0, 1, 3])
@pytest.mark.parametrize("rebalance", ["month", "week", 7])
def test_returns_are_those_of_a_ledger_in_money(calm, rebalance, lag):
    chasing = Chasing(0.9)
    walk = WalkForward(rebalance, "2019-03-01", "2019-11-15", Costs(proportional=0.002), lag=lag)
    track = walk.run(calm, chasing)
    rows = [calm.row(date) for date in track.trade_dates]
    assert [calm.row(date) + lag for date in chasing.seen] == rows
    targets = {row: answer.numpy() for row, answer in zip(rows, chasing.answers, strict=True)}
    net, weights, turnover = plain_ledger(calm.returns().numpy(), targets, calm.row("2019-11-15"), 0.002)
    np.testing.assert_allclose(track.net, net, rtol=0, atol=1e-12)
    np.testing.assert_allclose(track.weights, weights, rtol=0, atol=1e-12)
    np.testing.assert_allclose(track.turnover, turnover, rtol=0, atol=1e-12)
    np.testing.assert_allclose(track.costs, 0.002 * turnover, rtol=0, atol=1e-12)
    assert track.dates[0] == pd.Timestamp("2019-03-01")
    assert track.dates[-1] == pd.Timestamp("2019-11-15")
    listed = track.trades_frame().groupby("date")["trade"].apply(lambda trade: trade.abs().sum())
    np.testing.assert_allclose(listed, turnover[track.trade_rows], atol=1e-7)
    drifted = torch.stack(chasing.holdings)[1:]
    np.testing.assert_allclose(drifted, (torch.stack(chasing.answers) - track.trades)[1:], atol=1e-12)


def test_nothing_of_the_future_is_seen(changing, busy):
    cut = changing.row("2019-07-31")
    altered = busy.copy()
    later = altered["date"] > "2019-07-31"
    altered.loc[later, "close"] *= np.exp(np.random.default_rng(1).normal(0, 0.2, int(later.sum())))
    walk = WalkForward("month", "2019-05-01", "2019-09-30", Costs(proportional=0.001))
    for allocate in (Chasing, EqualWeight, lambda: InverseVolatility(40)):
        one = walk.run(changing, allocate())
        other = walk.run(Panel.from_frame(altered, delisted={"OLD": "2019-08-16"}), allocate())
        until = cut - changing.row(one.dates[0]) + 1
        torch.testing.assert_close(one.weights[: until + 1], other.weights[: until + 1], rtol=0, atol=0)
        assert torch.equal(one.net[:until], other.net[:until])
        assert not torch.equal(one.net[until:], other.net[until:])


def test_a_closed_asset_is_not_traded(changing):
    track = WalkForward(1, "2019-04-01", "2019-08-16", constraints=Constraints()).run(changing, EqualWeight())
    at = [changing.row(date) for date in track.trade_dates]
    closed = ~changing.mask[at]
    held = track.weights[track.trade_rows] > 0
    assert (closed & held).any(0).all()  # 4 July in New York, 1 May in Frankfurt
    assert (track.trades[closed] == 0).all()
    assert track.violations().empty
    returns = torch.nan_to_num(changing.returns()[at[0] + 1 : at[0] + 1 + len(track.dates)], nan=0.0)
    torch.testing.assert_close(track.net, (track.weights * returns).sum(-1))


def test_a_new_asset_is_bought_and_a_delisted_one_is_sold_at_its_last_price(changing, busy):
    walk = WalkForward("month", "2019-03-01", costs=Costs(proportional=0.001), constraints=Constraints())
    track = walk.run(changing, EqualWeight())
    weights = track.weights_frame()
    assert (weights.loc[:"2019-06-28", "NEW"] == 0).all()
    assert (weights.loc["2019-07-01":, "NEW"] > 0).all()
    assert (weights.loc[:"2019-08-19", "OLD"] > 0).all()  # sold at the close of the 19th, when it is known to be gone
    assert (weights.loc["2019-08-20":, "OLD"] == 0).all()
    trades = track.trades_frame()
    sale = trades[trades["date"] == pd.Timestamp("2019-08-19")]
    assert sale["asset"].tolist() == ["OLD"]
    after = track.dates.get_loc(pd.Timestamp("2019-08-20"))
    assert track.costs[after].item() == pytest.approx(-0.001 * sale["trade"].item())
    assert weights.loc["2019-08-20"].sum() == pytest.approx(1 + sale["trade"].item(), abs=2e-3)  # the rest is cash
    assert weights.loc["2019-09-02"].sum() == pytest.approx(1)  # Frankfurt is open, New York is not
    assert sum(track.decisions) == len(track.decisions) - 1
    assert track.violations().empty
    # Where nothing is known of delistings the position stays, and the others are chosen around it.
    stuck = walk.run(Panel.from_frame(busy), EqualWeight()).weights_frame()
    assert (stuck.loc["2019-08-20":, "OLD"] > 0).all()
    assert stuck.loc["2019-12-02"].sum() == pytest.approx(1)


def test_what_was_held_before_is_traded_from(calm):
    held = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    track = WalkForward("month", "2019-03-01").run(calm, EqualWeight(), holdings=held)
    assert track.turnover[0].item() == pytest.approx(1.5)
    cash = WalkForward("month", "2019-03-01").run(calm, EqualWeight())
    assert cash.turnover[0].item() == pytest.approx(1.0)
    more = summary(track)["turnover"] - summary(cash)["turnover"]
    assert more == pytest.approx(1.5 / 2 / (len(track.dates) / 252))  # a first purchase does not count


def test_broken_constraints_are_reported(calm):
    limits = Constraints(upper=0.3, turnover=0.5, budget=1.0)
    track = WalkForward("month", "2019-03-01", constraints=limits).run(calm, Chasing())
    found = track.violations()
    weights = track.weights[track.trade_rows]
    np.testing.assert_allclose(found["upper"], (weights.amax(-1) - 0.3).numpy())
    assert found["turnover"].iloc[0] == pytest.approx(0.5)
    assert (found["budget"] < 1e-9).all()
    assert summary(track)["violations"] == len(found) == sum(track.decisions)


def test_refits_come_before_their_decisions(calm):
    class Refitting(Chasing):
        refit_every = 3

        def __init__(self):
            super().__init__()
            self.fits = []

        def refit(self, panel, row):
            self.fits.append((len(self.seen), panel.dates[row]))

    allocate = Refitting()
    WalkForward("month", "2019-02-01", lag=1).run(calm, allocate)
    assert [count for count, _ in allocate.fits] == [0, 3, 6, 9]
    assert [date for _, date in allocate.fits] == allocate.seen[::3]


def test_a_series_is_put_in_order(calm):
    track = WalkForward(5, "2019-12-02").run(calm, lambda panel, row, held: pd.Series({"D": 0.25, "B": 0.75}))
    assert track.weights[0].tolist() == [0.0, 0.75, 0.0, 0.25]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (pd.Series({"Z": 1.0}), "2019-11-29.*Z"),
        (torch.tensor([0.5, 0.5]), "2019-11-29.*shape"),
        (torch.tensor([0.5, torch.nan, 0.5, 0.0]), "2019-11-29.*no number for B"),
    ],
)
def test_answers_that_cannot_be_used_are_refused(calm, answer, words):
    with pytest.raises(DataError, match=words):
        WalkForward("month", "2019-12-02").run(calm, lambda panel, row, held: answer)


def test_settings_that_cannot_be_run_are_refused(calm):
    with pytest.raises(DataError, match="nothing to run"):
        WalkForward("month", "2021-01-01").run(calm, EqualWeight())
    with pytest.raises(DataError, match="nothing to run"):
        WalkForward("month", "2019-01-03", lag=1).run(calm, EqualWeight())
    with pytest.raises(DataError, match="no asset has a price 60 rows before"):
        WalkForward("month", "2019-02-01").run(calm, EqualWeight(60))
    with pytest.raises(ValueError, match="lag=-1"):
        WalkForward(lag=-1)
    with pytest.raises(ValueError, match="impact"):
        WalkForward(costs=Costs(impact=0.5))


def test_figures_are_those_of_pandas(calm):
    track = WalkForward("week", "2019-02-01", costs=Costs(proportional=0.001)).run(calm, Chasing())
    frame, found = track.to_frame(), summary(track)
    net, years = frame["net"], len(frame) / 252
    wealth = (1 + net).cumprod()
    assert found["annual_return"] == pytest.approx(wealth.iloc[-1] ** (1 / years) - 1)
    assert found["volatility"] == pytest.approx(net.std() * 252**0.5)
    assert found["sharpe"] == pytest.approx(net.mean() / net.std() * 252**0.5)
    assert found["sharpe_gross"] > found["sharpe"]
    assert found["max_drawdown"] == pytest.approx(1 - (wealth / wealth.cummax().clip(lower=1.0)).min())
    tail = net.sort_values().to_numpy()
    share = 0.05 * len(tail)
    whole = int(share)
    assert found["cvar"] == pytest.approx(-(tail[:whole].sum() + (share - whole) * tail[whole]) / share)
    assert found["turnover"] == pytest.approx(frame["turnover"].iloc[1:].sum() / 2 / years)
    np.testing.assert_allclose(frame["gross"] - frame["costs"], net, atol=1e-15)


def test_the_first_day_counts_as_a_fall():
    from dataclasses import replace

    dates = pd.bdate_range("2019-01-02", periods=40)
    closes = pd.DataFrame({"A": [1.0, 1.0] + [0.8] * 38}, index=dates)
    track = WalkForward(5, dates[2]).run(Panel.from_frame(closes, exchange="XNYS"), EqualWeight())
    assert summary(track)["max_drawdown"] == pytest.approx(0.2)
    assert replace(track, net=-track.net).wealth[-1].item() == pytest.approx(1.2)


def test_pictures_are_drawn(changing):
    track = WalkForward("month", "2019-03-01").run(changing, EqualWeight())
    figure, (top, bottom) = plt.subplots(2)
    track.plot_weights(top, most=3)
    track.plot_drawdown(bottom)
    assert [text.get_text() for text in top.get_legend().get_texts()][-1] == "2 others"
    line = bottom.get_lines()[0].get_ydata()
    assert -line.min() == pytest.approx(summary(track)["max_drawdown"])
    plt.close(figure)
