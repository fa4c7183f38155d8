"""Calibrators whose assets learn by groups: the group's guarantee, newcomers, closed markets, and saved states."""

import pytest
import torch

from qtorch.calibration import AdaptiveConformal, AggregatedAdaptiveConformal, ConformalPID, backtest
from qtorch.data.errors import DataError
from qtorch.distributions import Empirical
from tests.calibration.markets import draws, normal_forecast

GROUPS = {"A0": "XNYS", "A1": "XNYS", "A2": None}
MADE = {
    "adaptive": lambda **k: AdaptiveConformal([0.9], 0.005, **k),
    "relative": lambda **k: AdaptiveConformal([0.9], 0.5, relative=True, **k),
    "aggregated": lambda **k: AggregatedAdaptiveConformal([0.9], **k),
    "pid": lambda **k: ConformalPID([0.9], **k),
}
every = pytest.mark.parametrize("name", MADE)
ADVERSARIES = {
    "greedy": lambda mass, coin: mass > 1e-6,
    "some": lambda mass, coin: (mass > 1e-6) & (coin > 0.2),
    "never": lambda mass, coin: mass >= 1 - 1e-6,
}


@pytest.mark.parametrize("adversary", ADVERSARIES)
@pytest.mark.parametrize("steady", [True, False], ids=["steady", "changing"])
def test_a_groups_mean_error_is_bounded_against_any_adversary(adversary, steady):
    """To the identity's last digit, of members that are all there or come and go."""
    T, N, p, gamma = 36, 4, 0.1, 0.05
    forecast, coins = normal_forecast(T + 1, N), draws(T, N, seed=1)
    there = draws(T, N, seed=2) > (-9.0 if steady else 0.3)
    calibrator = AdaptiveConformal([0.9], gamma, groups=dict.fromkeys(forecast.assets, "all"))
    returns = torch.full((T + 1, 1, N), torch.nan, dtype=torch.float64)
    means, hits = [], 0
    for t in range(T):
        ((_, (mass, _)),) = calibrator.walk(forecast.select(slice(0, t + 1)), returns[: t + 1])
        hit = ADVERSARIES[adversary](mass[0, 0], coins[t])
        edge = torch.special.ndtri(mass[0, 0])
        returns[t, 0] = torch.where(there[t], torch.where(hit, edge - 1e-3, edge + 1e-3), torch.nan)
        hits += int((hit & there[t]).sum())
        if there[t].any():
            means.append(hit[there[t]].double().mean())
    calibrator.update(forecast, returns)
    alpha = calibrator.state_dict()["state.alpha"][0, 0]
    assert len(alpha.unique()) == 1
    rows = len(means)
    assert rows == T if steady else 0.5 * T < rows < T
    off = torch.stack(means).mean() - p
    torch.testing.assert_close(off, (p - alpha[0]) / (gamma * rows), rtol=1e-12, atol=1e-12)
    assert abs(off) <= (1 - p + gamma) / (gamma * rows)
    if steady:
        assert hits / (T * N) == pytest.approx(float(off) + p)


@every
def test_a_newcomer_starts_where_its_group_is(name):
    groups = {"NEW": "XNYS", "FIRST": "XTKS", **GROUPS}
    forecast, returns = normal_forecast(30, 3), 3 * draws(30, 1, 3)
    calibrator = MADE[name](groups=groups)
    calibrator.update(forecast, returns)
    risk = calibrator.apply(forecast).value_at_risk(0.9)[0, 0]
    fresh = MADE[name]().apply(normal_forecast(1)).value_at_risk(0.9)[0, 0]
    assert risk[0] == risk[1] != risk[2]
    later = normal_forecast(31, 4, assets=("FIRST", "A2", "NEW", "A1"))
    tonight = calibrator.apply(later).value_at_risk(0.9)[0, 0]
    torch.testing.assert_close(tonight, torch.stack([fresh[0], risk[2], risk[0], risk[0]]), rtol=0, atol=0)
    came = torch.cat([returns[:, :, [0, 2, 0, 1]], torch.full((1, 1, 4), torch.nan)])
    calibrator.update(later, came)  # learns on with those that stayed, on A1's outcome alone
    after = calibrator.apply(later).value_at_risk(0.9)[0, 0]
    assert after[2] == after[3] != risk[0]
    assert after[0] == fresh[0]


@every
def test_a_group_of_one_is_an_asset_of_its_own(name):
    forecast, returns = normal_forecast(40, 3), 3 * draws(40, 1, 3)
    alone = backtest(MADE[name](), forecast, returns)
    named = backtest(MADE[name](groups={"A0": "X", "A1": None, "A2": "Y"}), forecast, returns)
    torch.testing.assert_close(named.mass, alone.mass, rtol=0, atol=0)
    torch.testing.assert_close(named.shift, alone.shift, rtol=0, atol=0)


@every
def test_members_with_the_same_outcomes_learn_as_one_does(name):
    forecast, returns = normal_forecast(40, 3), 3 * draws(40, 1, 1).expand(40, 1, 3).clone()
    returns[20:, :, 1] = torch.nan
    one = backtest(MADE[name](), forecast, returns)
    both = backtest(MADE[name](groups=GROUPS), forecast, returns)
    for part in ("mass", "shift"):
        expected = getattr(one, part)[..., 0]
        for n in range(3):
            torch.testing.assert_close(getattr(both, part)[..., n], expected, rtol=1e-12, atol=1e-12)


@every
def test_a_group_waits_while_its_market_is_closed(name):
    observed = torch.ones(30, 3, dtype=torch.bool)
    observed[10:14, :2] = False
    forecast = normal_forecast(30, 3, observed=observed)
    returns = torch.where(observed[:, None], 3 * draws(30, 1, 3), torch.nan)
    made = backtest(MADE[name](groups=GROUPS), forecast, returns).value_at_risk(0.9)[:, 0]
    assert (made[:, 0] == made[:, 1]).all()
    assert (made[10:14, 0] == made[9, 0]).all()
    assert (made[10:14, 2].diff() != 0).all()
    assert made[14, 0] != made[13, 0]


def test_a_late_members_outcome_is_of_the_step_of_the_row_on_which_it_is_known():
    gamma, p = 0.01, 0.1
    observed = torch.ones(9, 2, dtype=torch.bool)
    observed[5, 1] = False  # so that the outcome of row 4, and of row 5, comes on row 6
    forecast = normal_forecast(9, 2, observed=observed)
    returns = torch.full((9, 1, 2), 9.0)
    returns[4:6, :, 1] = -9.0
    alpha = backtest(AdaptiveConformal([0.9], gamma, groups=dict.fromkeys(("A0", "A1"), "X")), forecast, returns).mass
    steps = alpha[0, :, 0, 0].diff() / gamma
    expected = torch.tensor([p, p, p, p, p, p - 0.5, p, p], dtype=torch.float64)
    torch.testing.assert_close(steps, expected)


def test_two_outcomes_of_a_series_on_one_row_are_two_steps():
    forecast, returns = normal_forecast(4, 1), torch.full((4, 1, 1), -9.0)
    known = torch.tensor([2, 2, 3, 4]).reshape(4, 1, 1)
    alpha = backtest(AdaptiveConformal([0.9], 0.01), forecast, returns, known).mass[0, :, 0, 0]
    torch.testing.assert_close(alpha.diff(), torch.tensor([0.0, -0.018, -0.009], dtype=torch.float64))


def test_experts_are_weighted_by_the_groups_mean_loss():
    """From equal masses, the log ratio of two experts' weights is the mean of those of the members alone."""
    forecast = normal_forecast(3, 2)
    returns = torch.tensor([[9.0, 9.0], [-3.0, 0.1], [torch.nan, torch.nan]], dtype=torch.float64)[:, None]
    ratios = []
    for groups in (None, dict.fromkeys(forecast.assets, "X")):
        calibrator = AggregatedAdaptiveConformal([0.9], (0.1, 0.9), span=50, groups=groups)
        calibrator.update(forecast, returns)
        kept = calibrator.state_dict()["state.weight"][:, 0, 0] - 1 / (2 * 50) / 2  # less what leaks to all
        ratios.append((kept[1] / kept[0]).log())
    alone, together = ratios
    assert alone[0].sign() != alone[1].sign()
    torch.testing.assert_close(together, alone.mean().expand(2))


def test_a_state_goes_on_with_more_assets_but_not_with_others_groups():
    forecast, returns = normal_forecast(20, 3), 3 * draws(20, 1, 3)
    first = AdaptiveConformal([0.9], groups=GROUPS)
    first.update(forecast, returns)
    state = first.state_dict()
    assert state["groups"] == ["XNYS", "XNYS", None]
    AdaptiveConformal([0.9], groups={"NEW": "XTKS", "A0": "XNYS", "A2": None}).load_state_dict(state)
    for groups in (None, {"A0": "XNYS", "A1": "XTKS"}, {"A2": "XNYS"}):
        with pytest.raises(ValueError, match="the state has A"):
            AdaptiveConformal([0.9], groups=groups).load_state_dict(state)
    with pytest.raises(DataError, match=r"no label for A1.*None for none"):
        AdaptiveConformal([0.9], groups={"A0": "XNYS", "A2": None}).update(forecast, returns)


def test_empirical_laws_are_calibrated_by_groups_too():
    forecast = normal_forecast(30, 3)
    values = draws(30, 1, 3, 200)
    empirical = type(forecast)(Empirical(values), forecast.mask, forecast.state, forecast.dates, forecast.assets, (1,))
    made = backtest(AdaptiveConformal([0.9], groups=GROUPS), empirical, 3 * draws(30, 1, 3))
    assert (made.mass[..., 0] == made.mass[..., 1]).all()
    assert made.value_at_risk(0.9).isfinite().all()
