from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import Panel, State, SyntheticMarket
from qtorch.data.synthetic import Absences, StochasticVolatility
from qtorch.distributions import JumpStudentT
from qtorch.portfolio.graphs import Correlations, ewma_correlation, rolling_correlation
from qtorch.portfolio.graphs.returns import LONGEST

COMPLETE = Absences(late=0.0, early=0.0, halts=0.0, faults=0.0)
WINDOW, HALF_LIFE = 120, 30.0


def rolling(panel: Panel, rows: list[int], **options) -> Correlations:
    return rolling_correlation(panel, rows, **{"window": WINDOW, "min_common": 40} | options)


def ewma(panel: Panel, rows: list[int], **options) -> Correlations:
    return ewma_correlation(panel, rows, **{"half_life": HALF_LIFE, "min_common": 40} | options)


METHODS = pytest.mark.parametrize("method", [rolling, ewma])
LEAD_LAG = pytest.mark.parametrize("lead_lag", [False, True])


def session_returns(panel: Panel) -> pd.DataFrame:
    """Returns from the close before over the root of the sessions since, an asset and a row at a time."""
    out = np.full(tuple(panel.close.shape), np.nan)
    close, session = panel.close.numpy(), panel.is_session.numpy()
    for n in range(out.shape[1]):
        last = None
        for t in np.flatnonzero(~np.isnan(close[:, n])):
            if last is not None and t - last <= LONGEST:
                gap = session[last + 1 : t, n].sum() + 1
                out[t, n] = (close[t, n] / close[last, n] - 1) / np.sqrt(gap)
            last = t
    return pd.DataFrame(out)


def assert_same(one: Correlations, other: Correlations, exactly: bool = True) -> None:
    bounds = {"rtol": 0.0, "atol": 0.0} if exactly else {"rtol": 1e-5, "atol": 1e-6}
    assert torch.equal(one.mask, other.mask)
    for name in ("values", "counts", "volatility", "storms"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), equal_nan=True, **bounds)


def test_rolling_is_that_of_pandas_on_pairwise_complete_rows(market_panel):
    rows, returns = [200, 431, 700], session_returns(market_panel)
    found = rolling(market_panel, rows)
    assert 0 < (~found.mask).sum() < found.mask.sum()
    for r, row in enumerate(rows):
        part = returns.iloc[row - WINDOW + 1 : row + 1]
        alive = torch.logical_and(found.mask[r][:, None], found.mask[r])
        want = torch.tensor(part.corr(min_periods=40).to_numpy()).float()
        torch.testing.assert_close(found.values[r][alive], want[alive], rtol=0.0, atol=1e-6, equal_nan=True)
        there = part.notna().to_numpy().astype(float)
        torch.testing.assert_close(found.counts[r][alive], torch.tensor(there.T @ there).float()[alive])
        volatility = torch.tensor(part.std().to_numpy()).float()
        torch.testing.assert_close(found.volatility[r][found.mask[r]], volatility[found.mask[r]])
        assert found.values[r][~alive].isnan().all()


def test_ewma_is_that_of_pandas(market_panel):
    rows, returns = [200, 431, 700], session_returns(market_panel)
    found = ewma(market_panel, rows)
    for r, row in enumerate(rows):
        weighted = returns.iloc[: row + 1].ewm(halflife=HALF_LIFE)
        want = torch.tensor(weighted.corr(pairwise=True).loc[row].to_numpy()).float()
        there = found.values[r].isfinite()
        assert there.sum() > 50
        torch.testing.assert_close(found.values[r][there], want[there], rtol=0.0, atol=1e-6)
        volatility = torch.tensor(weighted.std().loc[row].to_numpy()).float()
        torch.testing.assert_close(found.volatility[r][found.mask[r]], volatility[found.mask[r]])
        weight = 0.5 ** ((row - np.arange(row + 1)) / HALF_LIFE)
        both = (returns.iloc[: row + 1].notna().to_numpy() * weight[:, None]).T @ returns.iloc[
            : row + 1
        ].notna().to_numpy()
        squares = (returns.iloc[: row + 1].notna().to_numpy() * weight[:, None] ** 2).T @ returns.iloc[
            : row + 1
        ].notna()
        counts = torch.tensor((both**2 / squares).to_numpy()).float()
        torch.testing.assert_close(found.counts[r][there], counts[there])


def test_matched_intervals_are_hayashi_and_yoshidas(market_panel):
    """Against a walk over all pairs of returns and their intervals in time."""
    row = 420
    found = rolling(market_panel, [row], lead_lag=True, min_common=20)
    close, index = market_panel.close.numpy(), list(market_panel.exchange_index)
    instants = market_panel.exchange_close[:, index].numpy()
    assets = found.mask[0].nonzero().flatten().tolist()
    assert len({market_panel.exchanges[n] for n in assets}) == 3
    moves: dict[int, list[tuple[int, float, int, int]]] = {}
    for n in assets:
        seen = np.flatnonzero(~np.isnan(close[: row + 1, n]))
        moves[n] = [
            (t, close[t, n] / close[p, n] - 1, instants[p, n], instants[t, n], p)
            for p, t in zip(seen[:-1], seen[1:], strict=True)
            if t - p <= LONGEST and t > row - WINDOW
        ]

    def beside(i: int, j: int) -> list[tuple[float, bool]]:
        """The returns of i at whose rows j has one or one under way, and whether it has one."""
        ends = {move[0] for move in moves[j]}
        under_way = {t for move in moves[j] for t in range(move[4] + 1, move[0])}
        return [(move[1], move[0] in ends) for move in moves[i] if move[0] in ends | under_way]

    for i in assets:
        for j in assets:
            if i <= j:
                continue
            products = sum(a[1] * b[1] for a in moves[i] for b in moves[j] if a[2] < b[3] and b[2] < a[3])
            one, other = beside(i, j), beside(j, i)
            means = [sum(value for value, _ in each) / len(each) for each in (one, other)]
            joint = sum(both for _, both in one)
            squares = [
                sum(v**2 for v, _ in each) - m**2 * len(each) for each, m in zip((one, other), means, strict=True)
            ]
            want = (products - means[0] * means[1] * joint) / np.sqrt(squares[0] * squares[1])
            assert found.values[0, i, j].item() == pytest.approx(np.clip(want, -1, 1), abs=1e-5)


@pytest.mark.parametrize("as_of", [None, "16:45 Europe/London"])
def test_matched_intervals_find_the_correlation_that_closing_hours_hide(as_of):
    """Of shocks with a correlation of 0.55 everywhere at the same instant."""
    shock = JumpStudentT(df=200.0, jump_rate=0.001, jump_mean=0.0, jump_scale=1.0)
    simulation = SyntheticMarket(
        {"XNYS": 4, "XLON": 4, "XTKS": 4}, start="2004-01-05", end="2015-12-30", sectors=1, market=0.55, sector=0.0,
        drift=0.0, shock=shock, volatility=StochasticVolatility(dispersion=0.01), absences=COMPLETE, seed=2,
    ).simulate()  # fmt: skip
    panel = Panel.from_frame(simulation.frame, as_of=as_of)
    row = len(panel.dates) - 1
    exchange = np.array(panel.exchanges)

    def between(found: Correlations, a: str, b: str) -> float:
        return found.values[0][exchange == a][:, exchange == b].mean().item()

    plain = rolling_correlation(panel, [row], window=row)
    matched = rolling_correlation(panel, [row], window=row, lead_lag=True)
    assert min(between(plain, "XNYS", "XTKS"), between(plain, "XNYS", "XLON")) < 0.25
    for a, b in (("XNYS", "XTKS"), ("XNYS", "XLON"), ("XLON", "XTKS")):
        assert between(matched, a, b) == pytest.approx(0.55, abs=0.045)


@METHODS
def test_matched_intervals_change_nothing_where_all_close_together(method):
    market = SyntheticMarket({"XNYS": 6}, start="2014-01-06", end="2015-06-30", absences=COMPLETE)
    panel = Panel.from_frame(market.simulate().frame)
    assert_same(method(panel, [150, 300]), method(panel, [150, 300], lead_lag=True), exactly=False)


@METHODS
@LEAD_LAG
@pytest.mark.parametrize("scale_half_life", [None, 20.0])
def test_nothing_after_a_row_counts_there(market_panel, method, lead_lag, scale_half_life):
    rows, options = [250, 473], {"lead_lag": lead_lag, "scale_half_life": scale_half_life}
    found = method(market_panel, rows, **options)
    values, state = market_panel.values.clone(), market_panel.state.clone()
    values[rows[-1] + 1 :] = torch.randn_like(values[rows[-1] + 1 :]).exp()
    state[rows[-1] + 1 :] = int(State.OBSERVED)
    assert_same(method(replace(market_panel, values=values, state=state), rows, **options), found)
    values[rows[-1] + 1 :] = torch.nan
    state[rows[-1] + 1 :] = int(State.UNLISTED)
    assert_same(method(replace(market_panel, values=values, state=state), rows, **options), found)
    date = market_panel.dates[rows[-1]]
    assert_same(method(market_panel.until(date), rows, **options), found)


@METHODS
@LEAD_LAG
def test_rows_do_not_depend_on_each_other(market_panel, method, lead_lag):
    rows = [130, 131, 255, 256, 257, 400, 640]
    found = method(market_panel, rows, lead_lag=lead_lag)
    for r, row in enumerate(rows):
        alone = method(market_panel, [row], lead_lag=lead_lag)
        # An EWMA of later rows alone forgets what weighs 2e-10.
        assert torch.equal(alone.mask[0], found.mask[r])
        torch.testing.assert_close(
            alone.values[0], found.values[r], equal_nan=True, rtol=0.0, atol=0.0 if method is rolling else 1e-6
        )


@METHODS
@LEAD_LAG
def test_assets_may_be_permuted(market_panel, method, lead_lag):
    order = torch.randperm(len(market_panel.assets))
    shuffled = market_panel.select([market_panel.assets[n] for n in order])
    found, other = (method(panel, [300, 600], lead_lag=lead_lag) for panel in (market_panel, shuffled))
    want = replace(
        found,
        values=found.values[:, order][:, :, order],
        counts=found.counts[:, order][:, :, order],
        **{name: getattr(found, name)[:, order] for name in ("mask", "volatility")},
    )
    assert_same(other, want, exactly=False)


def test_who_is_alive(market, market_panel):
    """Listed for long enough, and neither delisted nor silent for long."""
    listings, T = market.listings, len(market_panel.dates)
    rows = list(range(100, T, 9))
    found = rolling(market_panel, rows)
    there = session_returns(market_panel).notna().to_numpy()
    mask, session = found.mask.numpy(), market_panel.is_session.numpy()
    observed = market_panel.mask.numpy()
    gone = 0
    for n, asset in enumerate(market_panel.assets):
        last = market_panel.row(listings.loc[asset, "last"])
        for r, row in enumerate(rows):
            price = np.flatnonzero(observed[: row + 1, n])
            silent = session[price[-1] + 1 : row + 1, n].sum() if len(price) else 99
            count = there[max(row - WINDOW + 1, 0) : row + 1, n].sum()
            assert mask[r, n] == (silent <= 5 and count >= 40), (asset, row)
            gone += row > last + 20
            assert not (mask[r, n] and row > last + 20)
    assert gone > 50

    known = {asset: day for asset, day in listings["last"].items() if listings.loc[asset, "delisted"]}
    told = Panel.from_frame(market.frame, delisted=known)
    mask = rolling(told, rows).mask
    for asset, day in known.items():
        after = torch.tensor(rows) > told.row(day)
        assert not mask[after, told.assets.index(asset)].any()


def test_a_closed_market_stays_alive():
    market = SyntheticMarket({"XNYS": 2, "XTKS": 2}, start="2018-06-01", end="2019-06-28", absences=COMPLETE)
    panel = Panel.from_frame(market.simulate().frame)
    row = panel.row("2019-05-06")  # the last of ten days without a session in Tokyo
    assert (panel.state[row] == State.CLOSED).tolist() == [False, False, True, True]
    found = rolling(panel, [row])
    assert found.mask.all()
    assert found.values.isfinite().all()


def test_scaled_returns_are_over_the_volatility_before(market_panel):
    row, half_life = 500, 20.0
    found = rolling(market_panel, [row], scale_half_life=half_life)
    returns = session_returns(market_panel)
    variance = (returns**2).ewm(halflife=half_life).mean()
    settled = returns.notna().cumsum() >= 20
    volatility = variance.where(settled).ffill() ** 0.5
    want = (returns / volatility.shift()).iloc[row - WINDOW + 1 : row + 1].corr(min_periods=40).to_numpy()
    there = found.values[0].isfinite()
    torch.testing.assert_close(found.values[0][there], torch.tensor(want).float()[there], rtol=0.0, atol=2e-5)
    expected = torch.tensor(volatility.iloc[row].to_numpy()).float()
    torch.testing.assert_close(found.volatility[0][found.mask[0]], expected[found.mask[0]], rtol=1e-4, atol=0.0)


def test_a_price_that_does_not_move_is_not_alive():
    days = pd.bdate_range("2020-01-02", "2020-12-30")
    frame = pd.DataFrame(
        {"A": np.exp(0.01 * np.random.default_rng(0).standard_normal(len(days)).cumsum()), "B": 1.0}, days
    )
    panel = Panel.from_frame(frame, exchange="XNYS")
    found = rolling(panel, [200])
    assert found.mask.tolist() == [[True, False]]


def test_a_covariance_is_that_of_pandas(market_panel):
    complete = market_panel.select([asset for asset in market_panel.assets if asset.endswith("0000")])
    found = rolling(complete, [500])
    part = session_returns(complete).iloc[500 - WINDOW + 1 : 501]
    own = torch.tensor(part.var().to_numpy()).float()
    torch.testing.assert_close(found.covariance()[0].diagonal(), own)


@pytest.mark.parametrize("rows", [[], [3, 3], [5, 4], [-1], [10**6]])
def test_rows_that_are_none_are_refused(market_panel, rows):
    with pytest.raises(ValueError, match="rows must be ascending"):
        rolling(market_panel, rows)


@pytest.mark.parametrize(
    ("method", "options", "told"),
    [
        (rolling, {"window": 1}, "window=1"),
        (rolling, {"min_common": 121}, "min_common=121"),
        (rolling, {"lead_lag": True, "min_common": 5}, "min_common=5"),
        (rolling, {"stale": -1}, "stale=-1"),
        (ewma, {"half_life": 0.0}, "half_life"),
        (ewma, {"min_common": 90}, "worth 87"),
        (ewma, {"scale_half_life": 0.0}, "scale_half_life"),
    ],
)
def test_settings_out_of_bounds_are_refused(market_panel, method, options, told):
    with pytest.raises(ValueError, match=told):
        method(market_panel, [300], **options)
