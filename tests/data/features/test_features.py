import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from qtorch.data import Features, Panel, sessions
from qtorch.data.features import (
    Absolute,
    DayOfWeek,
    DownsideRatio,
    Drift,
    Ewma,
    Feature,
    Field,
    GapDays,
    Label,
    LaterCloses,
    Log,
    MarketState,
    MonthEnd,
    NextGapDays,
    RangeRatio,
    RangeVariance,
    Rank,
    Return,
    Rolling,
    Scaled,
    TailHistory,
    ToEvent,
    Volatility,
    VolatilityLevel,
    VolatilityRatio,
    WithIndicator,
    YangZhang,
    ZScore,
    default_features,
)
from qtorch.data.features.windowed import ewma
from tests.data.markets import make_ohlc

ALL = [
    Return(),
    Return(log=True),
    Field("volume"),
    Volatility(),
    Scaled(),
    Absolute(Return()),
    Log(Volatility()),
    Ewma(Absolute(Return()), 0.9, min_sessions=5),
    *(Rolling(Return(), 10, moment) for moment in ("mean", "std", "skew", "kurtosis")),
    VolatilityRatio(),
    VolatilityLevel(),
    Drift(),
    DownsideRatio(0.8),
    TailHistory(),
    *(RangeVariance(name) for name in ("parkinson", "garman_klass", "rogers_satchell")),
    RangeRatio("parkinson"),
    RangeRatio("realised"),
    YangZhang(10),
    GapDays(),
    NextGapDays(),
    DayOfWeek(),
    MonthEnd(),
    ToEvent("fomc", ("2019-01-30", "2018-11-08", "2018-12-19")),
    Label("exchange", ("XNYS", "XTKS")),
    WithIndicator(RangeRatio()),
    Rank(Return()),
    ZScore(Rolling(Return(), 5, "mean")),
    MarketState(),
    LaterCloses(),
]
NAMED = pytest.mark.parametrize("feature", ALL, ids=lambda feature: "-".join(feature.names[:1]))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Four assets on three exchanges: one listed late, one delisted early, one without ranges, all with holes."""
    frame = make_ohlc({"AAA": "XNYS", "BBB": "XNYS", "EEE": "XECB", "TTT": "XTKS"}, "2018-01-04", "2019-06-28")
    late = (frame["asset"] == "TTT") & (frame["date"] < "2018-09-03")
    gone = (frame["asset"] == "BBB") & (frame["date"] > "2019-02-15")
    frame = frame[~(late | gone)].copy()
    frame.loc[frame["asset"] == "EEE", ["open", "high", "low"]] = np.nan
    return frame.drop(frame.sample(frac=0.04, random_state=3).index).reset_index(drop=True)


@pytest.fixture(scope="module")
def panel(frame) -> Panel:
    return Panel.from_frame(frame)


def column(feature: Feature, panel: Panel, asset: str, at: int = 0) -> pd.Series:
    """A feature of one asset, by date, where it is there."""
    block = feature(panel)
    n = panel.assets.index(asset)
    values = pd.Series(block.values[:, n, at].numpy(), index=panel.dates)
    return values[block.mask[:, n, at].numpy()]


def own(frame: pd.DataFrame, asset: str) -> pd.DataFrame:
    return frame[frame["asset"] == asset].set_index("date")


@NAMED
def test_shapes_names_and_look_back(feature, panel):
    block = feature(panel)
    assert block.values.shape == (len(panel.dates), len(panel.assets), len(feature.names))
    assert block.values.dtype == torch.float64
    assert torch.equal(block.mask, block.values.isfinite())
    assert not (block.mask & ~panel.mask[:, :, None]).any()
    assert block.mask.any()
    returns = panel.returns().isfinite().cumsum(0)  # the first usable value comes after `lookback` returns
    seen = returns[:, :, None].expand_as(block.mask)[block.mask]
    assert seen.min() > feature.lookback
    if not isinstance(feature, Field | WithIndicator | RangeVariance | YangZhang | RangeRatio | ZScore | Rank):
        assert seen.min() == feature.lookback + 1


@NAMED
def test_the_future_changes_nothing_before_it(feature, frame):
    cut = pd.Timestamp("2019-01-15")
    changed = frame.copy()
    later = changed["date"] > cut
    factor = np.exp(0.3 * np.random.default_rng(5).standard_normal(later.sum()))
    for name in ("open", "high", "low", "close"):
        changed.loc[later, name] *= factor
    changed.loc[later, ["volume", "realised_variance"]] *= 7
    a, b = (feature(Panel.from_frame(f, jump=99.0)) for f in (frame, changed))
    row = Panel.from_frame(frame).row(cut) + 1
    torch.testing.assert_close(a.values[:row], b.values[:row], rtol=0, atol=0, equal_nan=True)
    if not isinstance(feature, GapDays | NextGapDays | DayOfWeek | MonthEnd | ToEvent | Label):  # which no price moves
        assert not torch.equal(a.values[row:].nan_to_num(), b.values[row:].nan_to_num())


@NAMED
def test_a_cut_panel_gives_the_same_rows(feature, panel):
    date = panel.dates[250]
    whole, cut = feature(panel), feature(panel.until(date))
    torch.testing.assert_close(whole.values[:251], cut.values, rtol=0, atol=0, equal_nan=True)


@pytest.fixture(scope="module")
def eras() -> list[Panel]:
    """A market with late rows, and the same 28 years before, when the calendar was the same, across 1970."""
    frame = make_ohlc({"FFF": "24/5", "GGG": "24/5"}, "1997-06-02", "1998-12-31")
    frame = frame.drop(frame.sample(frac=0.04, random_state=3).index).reset_index(drop=True)
    late = pd.to_timedelta(np.random.default_rng(3).exponential(20, len(frame)), unit="h").as_unit("us")
    frame["known_at"] = (frame["date"] + pd.Timedelta(days=1)).dt.tz_localize("UTC") + late
    back = pd.Timedelta(days=28 * 365 + 7)
    return [
        Panel.from_frame(frame.assign(date=frame["date"] - t, known_at=frame["known_at"] - t)) for t in (0 * back, back)
    ]


@NAMED
def test_the_sixties_are_as_good_as_the_nineties(feature, eras):
    now, then = (feature(panel) for panel in eras)
    torch.testing.assert_close(now.values, then.values, rtol=0, atol=0, equal_nan=True)


def test_session_days_before_1970(eras):
    now, then = (panel.session_day[panel.mask] for panel in eras)
    assert then.min() < -1 < then.max()
    assert torch.equal(now - then, torch.full_like(now, 28 * 365 + 7))
    dates = [panel.to_neuralforecast()["ds"] for panel in eras]
    assert (dates[0] - dates[1] == pd.Timedelta(days=28 * 365 + 7)).all()


@NAMED
def test_what_is_not_observed_changes_no_bit(feature, panel):
    values = panel.values.clone()
    values[~panel.mask] = 50.0
    a, b = feature(panel), feature(dataclasses.replace(panel, values=values))
    torch.testing.assert_close(a.values, b.values, rtol=0, atol=0, equal_nan=True)


@NAMED
def test_permuting_assets_permutes_the_feature(feature, panel):
    order = [2, 0, 3, 1]
    turned = feature(panel.select([panel.assets[i] for i in order]))
    torch.testing.assert_close(feature(panel).values[:, order], turned.values, rtol=1e-9, atol=1e-9, equal_nan=True)


@NAMED
def test_settings_survive_json(feature):
    plain = json.loads(json.dumps(feature.to_dict()))
    assert Feature.from_dict(plain) == feature


def test_features_survive_json_and_name_what_they_do_not_know():
    features = Features((*default_features(), Rank(Rolling(Return(), 5, "mean"))), warm_up=30)
    assert Features.from_dict(json.loads(json.dumps(features.to_dict()))) == features
    with pytest.raises(ValueError, match=r"no feature 'os\.system' is known"):
        Feature.from_dict({"feature": "os.system", "command": "true"})


@pytest.mark.parametrize("decay", [0.5, 0.94, 0.996])
def test_ewma_is_the_plain_recursion(decay):
    rng = np.random.default_rng(0)
    x = rng.standard_t(3, (3, 4000, 1)) * np.exp(rng.standard_normal((3, 4000, 1)))
    got = ewma(x, decay)
    total, weight = np.zeros((3, 1)), 0.0
    for i in range(4000):
        total, weight = decay * total + x[:, i], decay * weight + 1
        np.testing.assert_array_equal(got[:, i], total / weight)


def test_ewma_skips_closed_days_and_ages_over_missing_values(panel, frame):
    returns = own(frame, "TTT")["close"].pct_change().dropna()
    expected = returns.ewm(alpha=0.1, adjust=True).mean()[5:]
    got = column(Ewma(Return(), 0.9, min_sessions=5), panel, "TTT")
    pd.testing.assert_series_equal(got, expected, check_names=False, check_freq=False, rtol=1e-12)
    x = np.array([1.0, np.nan, 3.0])[None, :, None]
    assert np.isnan(ewma(x, 0.5)[0, 1, 0])
    assert ewma(x, 0.5)[0, 2, 0] == (0.25 * 1 + 3) / (0.25 + 1)


@pytest.mark.parametrize(
    ("moment", "reference"),
    [
        ("mean", np.mean),
        ("std", lambda x: np.std(x, ddof=1)),
        ("skew", stats.skew),
        ("kurtosis", lambda x: stats.kurtosis(x, fisher=False)),
    ],
)
def test_rolling_moments_equal_scipy(panel, frame, moment, reference):
    returns = own(frame, "AAA")["close"].pct_change().dropna()
    got = column(Rolling(Return(), 15, moment), panel, "AAA")
    assert list(got.index) == list(returns.index[14:])
    for i in range(0, len(got), 20):
        assert got.iloc[i] == pytest.approx(reference(returns.iloc[i : i + 15].to_numpy()), rel=1e-9)


def test_range_estimators_equal_their_formulas_and_each_other_on_average(panel, frame):
    prices = own(frame, "AAA").iloc[1:]
    o, h, low, c = (np.log(prices[name]) for name in ("open", "high", "low", "close"))
    expected = {
        "parkinson": (h - low) ** 2 / (4 * np.log(2)),
        "garman_klass": 0.5 * (h - low) ** 2 - (2 * np.log(2) - 1) * (c - o) ** 2,
        "rogers_satchell": (h - c) * (h - o) + (low - c) * (low - o),
    }
    for name, values in expected.items():
        got = column(RangeVariance(name), panel, "AAA")
        np.testing.assert_allclose(got, values[got.index], rtol=1e-9, atol=1e-15)
        assert column(RangeVariance(name), panel, "EEE").empty
    night, day = np.log(prices["open"] / own(frame, "AAA")["close"].shift().iloc[1:]), c - o
    n = 10
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    yang_zhang = (
        night.rolling(n).var() + k * day.rolling(n).var() + (1 - k) * expected["rogers_satchell"].rolling(n).mean()
    )
    got = column(YangZhang(n), panel, "AAA")
    np.testing.assert_allclose(got, yang_zhang[got.index], rtol=1e-9)
    assert len(got) == len(prices) - n + 1


@pytest.mark.parametrize("drift", [0.0, 0.02])
def test_range_estimators_recover_the_variance_of_a_brownian_motion(drift):
    rng = np.random.default_rng(1)
    steps, sigma, days = 2000, 0.01, 2500
    path = np.exp(np.cumsum(drift / steps + sigma / np.sqrt(steps) * rng.standard_normal((days, steps)), axis=1))
    path = np.concatenate([np.ones((days, 1)), path], axis=1)
    prices = (path[:, 0], path.max(1), path.min(1), path[:, -1])
    from qtorch.data.features import garman_klass, parkinson, rogers_satchell

    known = {"rs": rogers_satchell(*prices).mean() / sigma**2}
    if not drift:
        known |= {"p": parkinson(*prices).mean() / sigma**2, "gk": garman_klass(*prices).mean() / sigma**2}
    for ratio in known.values():  # discrete steps see a little less than the whole range
        assert 0.9 < ratio < 1.02


def test_contradictory_ranges_are_masked(frame):
    broken = frame.copy()
    at = broken.index[(broken["asset"] == "AAA")][100]
    broken.loc[at, "high"] = 0.5 * broken.loc[at, "close"]
    got = column(RangeVariance("parkinson"), Panel.from_frame(broken), "AAA")
    assert broken.loc[at, "date"] not in got.index


def test_ranks_and_scores_look_at_the_assets_observed(panel):
    returns = panel.returns().numpy()
    rank, score = Rank(Return())(panel).values[:, :, 0].numpy(), ZScore(Return())(panel).values[:, :, 0].numpy()
    for t in range(5, len(returns), 31):
        there = ~np.isnan(returns[t])
        if there.sum() < 3:
            assert np.isnan(score[t]).all()
            continue
        expected = 2 * (stats.rankdata(returns[t, there]) - 1) / (there.sum() - 1) - 1
        np.testing.assert_allclose(rank[t, there], expected)
        np.testing.assert_allclose(score[t, there], stats.zscore(returns[t, there], ddof=1), rtol=1e-9)
        assert np.isnan(rank[t, ~there]).all()


def test_calendar_features_know_the_calendar(panel):
    days = sessions("XNYS", panel.dates[0], panel.dates[-1]).days
    last = days[:-1][days[:-1].to_period("M") != days[1:].to_period("M")]
    flagged = column(MonthEnd(), panel, "AAA")
    assert set(flagged[flagged == 1].index) == set(flagged.index) & set(last)
    week = DayOfWeek()(panel).values[:, panel.assets.index("AAA")]
    monday = panel.row("2018-06-11")
    torch.testing.assert_close(week[monday], torch.tensor([1.0, 0.0], dtype=torch.float64))
    friday = panel.row("2018-08-31")  # Labor Day follows
    assert NextGapDays()(panel).values[friday, panel.assets.index("AAA"), 0].exp().item() == pytest.approx(4)


@pytest.mark.parametrize("lateness", [0, 1, 2, 30])
def test_calendar_features_of_late_data_are_those_of_its_own_sessions(frame, lateness):
    hours = 22 + 24 * (lateness + np.random.default_rng(2).random(len(frame)))
    late = frame.assign(known_at=(frame["date"] + pd.to_timedelta(hours, unit="h").as_unit("us")).dt.tz_localize("UTC"))
    panel = Panel.from_frame(late)
    gap, end = NextGapDays()(panel), MonthEnd()(panel)
    for n, code in enumerate(panel.exchanges):
        there = gap.mask[:, n, 0]
        if lateness > 2:  # the first row tells of no session before it: weekdays stand for them
            there &= panel.session_day[:, n] >= (panel.dates[0] - pd.Timestamp("1970-01-01")).days
        day = pd.DatetimeIndex(panel.session_day[there, n].numpy().astype("M8[D]"))
        own = sessions(code, day[0], panel.dates[-1]).days
        following = own[own.searchsorted(day, side="right")]
        np.testing.assert_allclose(gap.values[there, n, 0].exp(), (following - day).days, rtol=1e-12)
        np.testing.assert_array_equal(end.values[there, n, 0], day.month != following.month)
        assert len(day) > 30
    for feature, whole in ((NextGapDays(), gap), (MonthEnd(), end)):
        for row in (1, 3, 40, 200):
            cut = feature(panel.until(panel.dates[row])).values
            torch.testing.assert_close(whole.values[: row + 1], cut, rtol=0, atol=0, equal_nan=True)


def test_an_indicator_says_what_a_source_lacks(panel):
    feature = WithIndicator(RangeRatio("garman_klass"))
    values = feature(panel).values
    for asset, has in (("AAA", 1.0), ("EEE", 0.0)):
        n = panel.assets.index(asset)
        there = values[:, n, 1].isfinite()
        assert (values[there, n, 1][30:] == has).all()
        assert (values[there, n, 0][30:] != 0).all() == bool(has)
    bare = Features((Return(), RangeRatio()), warm_up=20)
    flagged = Features((Return(), feature), warm_up=20)
    from qtorch.data import WindowSource, WindowSpec

    n = panel.assets.index("EEE")
    for features, has in ((bare, False), (flagged, True)):
        source = WindowSource(panel, WindowSpec(8, (1,), features))
        assert (source.gather(source.entries()).asset_index == n).any() == has


def test_bad_settings_are_refused():
    for make, words in (
        (lambda: Rolling(Return(), 1), "window of at least 2 sessions, not 1"),
        (lambda: Rolling(Return(), 5, "median"), "not 'median'"),
        (lambda: Ewma(Return(), 1.0), r"inside \(0, 1\), not 1.0"),
        (lambda: Rank(DayOfWeek()), "one column, not of 2"),
        (lambda: Rank(Rank(Return())), "own sessions, not Rank"),
        (lambda: RangeVariance("close"), "'close' is none of parkinson"),
        (lambda: Features(()), "at least one feature"),
        (lambda: Features((Return(), Return())), "more than one column is named return"),
        (lambda: Features(warm_up=0), "warm_up must be at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


def test_a_field_that_the_panel_lacks_is_named(panel):
    from qtorch.data import DataError

    with pytest.raises(DataError, match="no field 'bid'; this panel has open, high"):
        Field("bid")(panel)


def test_a_label_is_one_in_its_own_column_and_nothing_for_assets_unknown(panel):
    known = panel.assets[:2]
    sector = Label.of_assets("sector", dict(zip(known, ("tech", "oil"), strict=True)) | {"elsewhere": "tech"})
    assert sector.names == ("sector=oil", "sector=tech")
    values = sector(panel).values
    for n, asset in enumerate(panel.assets):
        mine = values[:, n][values[:, n].isfinite().all(-1)]
        expected = {known[0]: [0.0, 1.0], known[1]: [1.0, 0.0]}.get(asset, [0.0, 0.0])
        assert len(mine)
        assert (mine == torch.tensor(expected, dtype=torch.float64)).all()
    venue = Label.exchange(panel)(panel).values
    assert (venue.nan_to_num().sum(-1) == panel.mask[:].double() * venue.isfinite().all(-1)).all()


def test_labels_refuse_what_is_ambiguous():
    with pytest.raises(ValueError, match="names an asset twice"):
        Label("sector", ("tech",), (("AAPL", "tech"), ("AAPL", "oil")))
    with pytest.raises(ValueError, match="each once"):
        Label("sector", ())
    with pytest.raises(ValueError, match="needs dates"):
        ToEvent("fomc")


def test_days_to_an_event_count_down_and_start_anew_after_it(panel):
    at = len(panel.dates) // 2
    event = panel.dates[at]
    days = ToEvent("event", (f"{event:%Y-%m-%d}",), most=20)(panel).values[:, :, 0]
    for n in range(len(panel.assets)):
        for t in (at - 1, at):
            if panel.mask[t, n] and days[t, n].isfinite():
                ahead = (event - panel.dates[t]).days
                assert days[t, n] == pytest.approx(np.log(ahead if ahead > 0 else 20))


def test_later_closes_are_those_of_markets_still_open_at_an_assets_own(frame, panel):
    values = LaterCloses()(panel).values
    z = Scaled(min_sessions=0)(panel).values[:, :, 0]
    tokyo, frankfurt, york = (panel.assets.index(name) for name in ("TTT", "EEE", "AAA"))
    us = [panel.assets.index(name) for name in ("AAA", "BBB")]
    rows = panel.mask[:, [tokyo, frankfurt, york]].all(1).nonzero().flatten()
    rows = rows[values[rows, tokyo, 0].isfinite()]
    assert len(rows) > 100
    last = z[rows][:, us].nanmean(1)
    torch.testing.assert_close(values[rows, tokyo, 1], last, atol=1e-6, rtol=0)
    torch.testing.assert_close(values[rows, tokyo, 2], last.abs(), atol=1e-6, rtol=0)
    torch.testing.assert_close(values[rows, frankfurt, 0], last, atol=1e-6, rtol=0)
    torch.testing.assert_close(values[rows, tokyo, 0], z[rows][:, [*us, frankfurt]].nanmean(1), atol=1e-6, rtol=0)
    assert (values[rows, york] == 0).all()


def test_at_londons_close_nothing_has_closed_after_london(frame):
    london = Panel.from_frame(frame, as_of="16:30 Europe/London")
    values, z = LaterCloses()(london).values, Scaled(min_sessions=0)(london).values[:, :, 0]
    tokyo, york = london.assets.index("TTT"), london.assets.index("AAA")
    both = london.mask[:, [tokyo, york]].all(1) & values[:, tokyo, 0].isfinite()
    assert both.sum() > 100
    assert (values[both, tokyo, 2] == z[both, london.assets.index("EEE")].abs().nan_to_num()).double().mean() > 0.9
    assert (values[both, york, 0] != 0).all()  # its close on this row is yesterday's


def test_drift_and_downside_are_the_plain_means_of_pandas(frame, panel):
    returns = own(frame, "AAA")["close"].pct_change().dropna()
    sigma = (returns**2).ewm(alpha=0.06).mean() ** 0.5
    drift = (returns / sigma).ewm(alpha=0.2).mean() * np.sqrt(1.8 / 0.2)
    got = column(Drift(0.8), panel, "AAA")
    np.testing.assert_allclose(got, drift.clip(-5, 5)[got.index], atol=1e-9)
    losses = (2 * returns.clip(upper=0) ** 2).ewm(alpha=0.2).mean()
    got = column(DownsideRatio(0.8), panel, "AAA")
    np.testing.assert_allclose(got, 0.5 * np.log((losses / sigma**2 + 0.01) / 1.01)[got.index], atol=1e-4)


def test_tail_history_counts_returns_beyond_their_forecast_volatility(frame, panel):
    returns = own(frame, "AAA")["close"].pct_change().dropna()
    sigma = (returns**2).ewm(alpha=0.06).mean() ** 0.5
    z = (returns / sigma.shift().fillna(sigma)).clip(-8, 8)
    expected = [(z**2).clip(upper=16) ** 2 / 10, 10.0 * (z < -1.65), 10 * (-z - 1.65).clip(lower=0), 10.0 * (z > 1.65)]
    for at, series in enumerate(expected):
        got = column(TailHistory(), panel, "AAA", at)
        assert got.std() > 0.01
        np.testing.assert_allclose(got, series.ewm(alpha=0.015).mean()[got.index] - 0.5, atol=1e-9)
