import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from qtorch.data import DataError, Panel, State, sessions
from qtorch.data.synthetic import Absences, Simulation, StochasticVolatility, SyntheticMarket
from qtorch.distributions import JumpStudentT, tail_mean, take

COMPLETE = Absences(late=0.0, early=0.0, halts=0.0, faults=0.0)
EXCHANGES = {"XNYS": 10, "XLON": 10, "XTKS": 10}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine, threads that wait for each other take thirty times as long for Student's distribution."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def market() -> Simulation:
    """A market with everything that can happen in it."""
    absences = Absences(late=0.4, early=0.3, halts=0.005, halt_length=6.0, faults=0.01)
    return SyntheticMarket(EXCHANGES, start="2012-01-02", end="2017-12-29", absences=absences, seed=3).simulate()


@pytest.fixture(scope="module")
def panel(market) -> Panel:
    return Panel.from_frame(market.frame, off_calendar="raise")


@pytest.fixture(scope="module")
def long() -> Simulation:
    """Twenty complete years, for correlations."""
    return SyntheticMarket(EXCHANGES, start="2000-01-04", end="2019-12-30", absences=COMPLETE, seed=5).simulate()


@pytest.fixture(scope="module")
def lonely() -> Simulation:
    """Assets with nothing in common, all of whose returns are independent given their volatilities."""
    settings = {"start": "2005-01-03", "end": "2014-12-31", "market": 0.0, "sector": 0.0, "seed": 7}
    shock = JumpStudentT(df=5.0, jump_rate=0.02, jump_mean=-2.0, jump_scale=4.0)
    return SyntheticMarket({"XNYS": 20, "XHKG": 20}, shock=shock, **settings).simulate()


@pytest.fixture(scope="module")
def lonely_pit(lonely) -> np.ndarray:
    return lonely.pit().numpy()


def test_realised_returns_are_uniform_in_their_true_law(lonely_pit):
    u = lonely_pit[np.isfinite(lonely_pit)]
    assert len(u) > 80_000
    assert stats.kstest(u, "uniform").pvalue > 0.01
    edges = np.concatenate([[0, 2e-4, 1e-3, 0.01], np.linspace(0.05, 0.95, 19), [0.99, 0.999, 0.9998, 1]])
    counts = np.histogram(u, edges)[0]
    assert stats.chisquare(counts, len(u) * np.diff(edges)).pvalue > 0.01


def test_a_law_that_is_a_little_wrong_is_found_out(lonely):
    x = torch.from_numpy(standardised(lonely)[lonely.mask.numpy()][:30_000])
    without_jumps = JumpStudentT(5.0, jump_rate=0.0)
    for u in (lonely.shock.cdf(1.06 * x), lonely.shock.cdf(x + 0.04), without_jumps.cdf(x)):
        assert stats.kstest(u.numpy(), "uniform").pvalue < 1e-3


def test_the_law_holds_for_every_asset_of_a_market_that_moves_together(market):
    p_values = [stats.kstest(u[np.isfinite(u)], "uniform").pvalue for u in market.pit().numpy().T]
    assert min(p_values) > 0.01 / len(p_values)


def test_nothing_is_left_to_predict_in_what_the_law_explains(lonely, lonely_pit):
    u = pd.DataFrame(lonely_pit) - 0.5
    by_asset = [u[n].dropna().reset_index(drop=True) for n in u]
    returns = [pd.Series(r[np.isfinite(r)]) for r in lonely.returns.numpy().T]
    for transform in (lambda x: x, np.square, np.abs):
        left = [transform(x).autocorr(1) for x in by_asset]
        assert abs(np.mean(left)) < 4 / math.sqrt(sum(map(len, by_asset)))
    assert np.mean([r.abs().autocorr(1) for r in returns]) > 0.07  # volatility clusters all the same


def test_the_future_is_as_the_truth_ahead_says(market):
    law, mask = market.truth()
    ahead, ahead_mask = market.truth(ahead=True)
    session = market.volatility.isfinite()
    for n in range(0, len(market.assets), 7):
        rows = session[:, n].nonzero().squeeze(1)
        before, after = rows[:-1], rows[1:]
        assert torch.equal(ahead_mask[before, n], mask[after, n])
        assert torch.equal(ahead.scale[before, n], law.scale[after, n])
        assert torch.equal(ahead.loc[before, n], law.loc[after, n])
        closed = (~session[:, n]).nonzero().squeeze(1)
        assert not ahead_mask[closed, n].any()
        assert not ahead_mask[rows[-1], n]
    assert ahead_mask.sum() == mask.sum()


@pytest.mark.parametrize("law", [JumpStudentT(), JumpStudentT(3.0, 0.05, -4.0, 5.0), JumpStudentT(8.0, 0.0)])
def test_the_shock_has_mean_0_variance_1_and_consistent_functions(law):
    t = torch.linspace(-9, 9, 16_001, dtype=torch.float64)
    x, weight = torch.sinh(t), torch.cosh(t) * (t[1] - t[0])  # out to 4,000 standard deviations

    def expect(values: torch.Tensor) -> float:
        return (values * law.log_prob(x).exp() * weight).sum().item()

    assert expect(torch.ones_like(x)) == pytest.approx(1, abs=1e-9)
    assert expect(x) == pytest.approx(law.mean.item(), abs=1e-6)
    assert expect(x * x) == pytest.approx(law.variance.item(), abs=2e-3 if law.parameters["df"] < 4 else 1e-6)
    p = torch.tensor([1e-6, 1e-3, 0.01, 0.3, 0.5, 0.9, 0.999, 1 - 1e-6], dtype=torch.float64)
    torch.testing.assert_close(law.cdf(law.icdf(p)), p, rtol=1e-12, atol=0)
    below = x <= law.icdf(p[2])
    assert tail_mean(law, 0.01).item() == pytest.approx(expect(x * below) / expect(below.double()), rel=1e-3)


def test_without_jumps_the_shock_is_student_t():
    law, reference = JumpStudentT(5.0, jump_rate=0.0), stats.t(5, scale=math.sqrt(3 / 5))
    x = torch.linspace(-8, 8, 33, dtype=torch.float64)
    np.testing.assert_allclose(law.cdf(x), reference.cdf(x), rtol=1e-9)
    np.testing.assert_allclose(law.log_prob(x), reference.logpdf(x), rtol=1e-9)


def test_the_shock_samples_its_law():
    law = JumpStudentT(4.0, 0.1, -3.0, 2.0).expand((2,))
    draws = law.sample((5_000,))
    assert draws.shape == (5_000, 2)
    assert stats.kstest(law.cdf(draws).flatten().numpy(), "uniform").pvalue > 0.01


def test_parts_of_the_truth_can_be_taken(market):
    law, mask = market.truth()
    some = take(law, (slice(10, 20), 3))
    assert some.batch_shape == (10,)
    torch.testing.assert_close(some.icdf(torch.tensor(0.01)), law.icdf(torch.tensor(0.01))[10:20, 3])
    assert law.mean[mask].equal(market.mean[mask])
    torch.testing.assert_close(law.variance[mask].sqrt(), market.volatility[mask])
    assert take(law, mask).sample().shape == (int(mask.sum()),)


def test_the_same_seed_gives_the_same_bytes():
    settings = {"exchanges": {"XNYS": 3, "XTKS": 2}, "start": "2016-01-04", "end": "2016-12-30"}
    first, again, other = (SyntheticMarket(**settings, seed=seed).simulate() for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first.frame, again.frame, check_exact=True)
    assert first.volatility.numpy().tobytes() == again.volatility.numpy().tobytes()
    assert not np.isclose(first.frame["close"].iloc[:50], other.frame["close"].iloc[:50]).any()


def test_prices_are_on_sessions_only_and_every_session_is_accounted_for(market):
    for code, prices in market.frame.groupby("exchange"):
        days = sessions(code, pd.Timestamp("2012-01-02"), pd.Timestamp("2017-12-29")).days
        days = days[days <= "2017-12-29"]
        assert prices["date"].isin(days).all()
        columns = torch.tensor(list(market.listings["exchange"] == code))
        closed = torch.from_numpy(~market.dates.isin(days))
        assert market.volatility[:, columns].isnan().all(1).equal(closed)
        assert not ((market.state == State.MISSING) & closed[:, None])[:, columns].any()


def test_the_panel_is_that_of_the_truth(market, panel):
    assert panel.assets == market.assets
    assert list(panel.dates) == list(market.dates)
    assert panel.state.equal(market.state)
    got = panel.returns()
    torch.testing.assert_close(got[market.mask], market.returns[market.mask], rtol=1e-9, atol=1e-12)
    # Besides, the panel has the returns over holes, which span several sessions.
    over_holes = got.isfinite() & ~market.mask
    last_seen = torch.where(market.state == State.MISSING, 1, 0).cumsum(0)
    assert (last_seen[over_holes] > 0).all()
    assert panel.findings["kind"].isin(["jump"]).all()


def test_listings_and_delistings_are_where_the_truth_says(market):
    spans = market.frame.groupby("asset")["date"].agg(["min", "max"])
    assert (spans["min"] == market.listings["first"]).all()
    assert (spans["max"] == market.listings["last"]).all()
    late = market.listings["first"] > "2012-01-04"
    assert 0.1 < late.mean() < 0.7
    assert 0.05 < market.listings["delisted"].mean() < 0.6
    stalwarts = market.listings.groupby("exchange").head(1)
    assert not (stalwarts["delisted"] | (stalwarts["first"] > "2012-01-04")).any()


def test_halts_come_as_runs_and_faults_alone():
    def lengths(absences: Absences) -> np.ndarray:
        market = SyntheticMarket({"XNYS": 20}, start="2010-01-04", end="2017-12-29", absences=absences)
        missing = (market.simulate().state == State.MISSING).numpy()
        edges = np.diff(np.pad(missing, ((1, 1), (0, 0))).astype(int), axis=0).T
        return np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]

    halts = lengths(Absences(late=0.0, early=0.0, halts=0.004, halt_length=5.0, faults=0.0))
    assert halts.mean() == pytest.approx(5, rel=0.15)
    assert len(halts) == pytest.approx(20 * 2013 * 0.004, rel=0.25)
    faults = lengths(Absences(late=0.0, early=0.0, halts=0.0, faults=0.005))
    assert (faults == 1).mean() > 0.97
    assert faults.sum() == pytest.approx(20 * 2013 * 0.005, rel=0.25)


def test_prices_of_a_session_are_consistent(market):
    frame = market.frame
    assert (frame["low"] <= frame[["open", "close"]].min(axis=1)).all()
    assert (frame["high"] >= frame[["open", "close"]].max(axis=1)).all()
    assert (frame[["open", "high", "low", "close", "volume"]] > 0).all(axis=None)
    assert frame.notna().all(axis=None)


def test_ranges_measure_the_variance_that_the_session_had(market):
    frame = market.frame
    parkinson = (np.log(frame["high"] / frame["low"]) ** 2).mean() / (4 * math.log(2))
    within = (np.log(frame["close"] / frame["open"]) ** 2).mean()
    assert parkinson == pytest.approx(within, rel=0.05)
    volatility = pd.DataFrame(market.volatility.numpy(), market.dates, market.assets).stack()
    joined = frame.set_index(["date", "asset"])["volume"].to_frame().assign(volatility=volatility)
    within_asset = np.log(joined).groupby("asset").corr().xs("volume", level=1)["volatility"]
    assert (within_asset > 0.2).all()


def test_tokyo_follows_the_new_york_of_yesterday(long):
    index = by_exchange(long)
    new_york, tokyo, london = (index[code] for code in ("XNYS", "XTKS", "XLON"))
    yesterday = new_york.ffill().shift(1)
    assert tokyo.corr(yesterday) > tokyo.corr(new_york) + 0.15
    assert tokyo.corr(new_york) > 0.1
    assert london.corr(new_york) > london.corr(yesterday) + 0.15


def test_sectors_move_together_more_than_the_market(long):
    own = standardised(long)
    sector, code = (long.listings[name].to_numpy() for name in ("sector", "exchange"))
    for exchange in EXCHANGES:
        z = pd.DataFrame(own[:, code == exchange]).dropna()
        correlation, of = np.corrcoef(z.T), sector[code == exchange]
        other = ~np.eye(len(of), dtype=bool)
        same = of[:, None] == of
        assert correlation[same & other].mean() > correlation[~same].mean() + 0.1
        assert correlation[~same].mean() > 0.2


def test_shocks_are_heavy_tailed_crash_together_and_raise_volatility(long):
    own = standardised(long)
    x = own[np.isfinite(own)]
    assert x.std() == pytest.approx(1, abs=0.02)
    assert stats.kurtosis(x) > 2
    assert long.jump.double()[long.mask].mean().item() == pytest.approx(0.01, rel=0.2)
    pairs = (
        pd.DataFrame(own[:, long.listings["exchange"] == "XNYS"]).dropna() < long.shock.icdf(torch.tensor(0.01)).item()
    )
    together = pairs.sum(axis=1)
    assert (together >= 3).sum() > 10 * stats.binom.sf(2, 10, 0.01) * len(pairs)
    news = [(pd.Series(own[:, n]).dropna(), pd.Series(long.volatility.numpy()[:, n]).dropna()) for n in range(30)]
    turns = [np.corrcoef(shock[:-1], np.diff(np.log(sigma[-len(shock) :])))[0, 1] for shock, sigma in news]
    assert np.mean(turns) < -0.2


def test_variance_grows_over_weekends_and_holidays():
    settings = {"start": "2010-01-04", "end": "2019-12-31", "absences": COMPLETE, "weekend": 0.25}
    still = StochasticVolatility(level=0.01, spread=0.0, dispersion=0.0)
    market = SyntheticMarket({"XTKS": 1}, volatility=still, **settings).simulate()
    variance = pd.Series(market.volatility[:, 0].numpy() ** 2 / 0.01**2, market.dates)
    np.testing.assert_allclose(variance["2010-01-05":"2010-01-08"], 1, rtol=1e-9)
    assert variance["2010-01-12"] == pytest.approx(2 + 2 * 0.25)  # a Tuesday, after a Monday's holiday
    assert variance["2010-01-18"] == pytest.approx(1 + 2 * 0.25)
    assert market.mean[:, 0].numpy() == pytest.approx(0.0003 * variance)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: SyntheticMarket({}), "exchanges"),
        (lambda: SyntheticMarket({"XNYS": 0}), r"exchanges\['XNYS'\]=0: .*at least 1"),
        (lambda: SyntheticMarket(start="2012-01-01", end="2011-01-01"), "span=2012-01-01 to 2011-01-01"),
        (lambda: SyntheticMarket(sectors=0), "sectors=0"),
        (lambda: SyntheticMarket(market=0.7, sector=0.5), r"market \+ sector=1.2"),
        (lambda: SyntheticMarket(market=-0.1), "market=-0.1"),
        (lambda: SyntheticMarket(weekend=0.0), "weekend=0.0"),
        (lambda: SyntheticMarket(drift=math.nan), "drift=nan"),
        (lambda: SyntheticMarket(seed=-1), "seed=-1"),
        (lambda: JumpStudentT(df=2.0), "df=2.0: .*above 2"),
        (lambda: JumpStudentT(jump_rate=1.0), "jump_rate=1.0"),
        (lambda: JumpStudentT(jump_scale=0.0), "jump_scale=0.0"),
        (lambda: StochasticVolatility(level=1.5), "level=1.5"),
        (lambda: StochasticVolatility(persistence=1.0), "persistence=1.0"),
        (lambda: StochasticVolatility(leverage=-1.5), "leverage=-1.5"),
        (lambda: Absences(late=1.5), "late=1.5"),
        (lambda: Absences(halt_length=0.5), "halt_length=0.5"),
        (lambda: SyntheticMarket(end="2010-01-06").simulate(), "at least 10 sessions"),
    ],
)
def test_a_bad_setting_is_named_with_its_value_and_the_remedy(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def test_an_unknown_exchange_is_refused():
    with pytest.raises(DataError, match="XXXX"):
        SyntheticMarket({"XXXX": 1}).simulate()


def standardised(market: Simulation) -> np.ndarray:
    """Returns in units of their true law, NaN where none is seen."""
    x = (market.returns - market.mean) / market.volatility
    return torch.where(market.mask, x, torch.nan).numpy()


def by_exchange(market: Simulation) -> pd.DataFrame:
    """The equally weighted return of each exchange, NaN on its closed days."""
    returns = pd.DataFrame(market.returns.numpy(), market.dates, market.assets)
    return returns.T.groupby(market.listings["exchange"]).mean().T
