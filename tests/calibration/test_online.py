"""Guarantees of the online calibrators, and what all of them must do."""

import math

import pytest
import torch
from safetensors.torch import load, save

from qtorch.calibration import (
    AdaptiveConformal,
    AggregatedAdaptiveConformal,
    ConformalisedQuantiles,
    ConformalPID,
    PitMap,
    backtest,
    recalibrate,
)
from qtorch.calibration.sessions import known_at
from qtorch.training import mixed
from tests.calibration.markets import draws, normal_forecast

LEVELS = (0.95, 0.99)
GROUPS = {"A0": "XNYS", "A1": "XNYS", "A2": None}
MADE = {
    "adaptive": lambda **k: AdaptiveConformal(LEVELS, **k),
    "relative": lambda **k: AdaptiveConformal(LEVELS, relative=True, **k),
    "aggregated": lambda **k: AggregatedAdaptiveConformal(LEVELS, **k),
    "pid": lambda **k: ConformalPID(LEVELS, **k),
    "scorecast": lambda **k: ConformalPID(LEVELS, scorecaster=mean_of_scores, memory=20, **k),
    "quantiles": lambda **k: ConformalisedQuantiles(LEVELS, 60, **k),
    "grouped": lambda **k: ConformalisedQuantiles(LEVELS, 60, half_life=30.0, groups=GROUPS, **k),
    "adaptive, grouped": lambda **k: AdaptiveConformal(LEVELS, groups=GROUPS, **k),
    "aggregated, grouped": lambda **k: AggregatedAdaptiveConformal(LEVELS, groups=GROUPS, **k),
    "scorecast, grouped": lambda **k: ConformalPID(LEVELS, scorecaster=mean_of_scores, memory=20, groups=GROUPS, **k),
}
every = pytest.mark.parametrize("name", MADE)


def mean_of_scores(scores):
    return 0.1 * scores.nanmean(0).nan_to_num()


def errors(calibrator, forecast, returns):
    made = backtest(calibrator, forecast, returns)
    return torch.stack([returns < -made.value_at_risk(level) for level in calibrator.levels])


class Adversary:
    """Returns that exceed the VaR whenever it suits, made against what the calibrator issues."""

    def __init__(self, pattern):
        self.pattern = pattern

    def run(self, calibrator, T):
        count = 0
        forecast = normal_forecast(T + 1)
        returns = torch.full((T + 1, 1, 1), torch.nan, dtype=torch.float64)
        for t in range(T):
            issued = calibrator.walk(forecast.select(slice(0, t + 1)), returns[: t + 1])
            for _, (mass, shift) in issued:
                var = shift.item() - torch.special.ndtri(mass).item()
            hit = self.pattern(t, mass.item(), shift.item())
            count += hit
            returns[t] = -var - 1e-3 if hit else -var + 1e-3
        return count


PATTERNS = {
    "greedy": lambda t, mass, shift: mass > 1e-6 and shift < 4,  # beyond whenever a bounded market can be
    "bursts": lambda t, mass, shift: mass > 1e-6 and shift < 4 and (t // 40) % 2 == 0,
    "never": lambda t, mass, shift: mass >= 1 - 1e-6 or shift < -4,
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_share_of_errors_is_bounded_against_any_adversary(pattern):
    T, p = 80, 0.1
    for relative, gamma in ((False, 0.02), (True, 0.5)):
        calibrator = AdaptiveConformal([0.9], gamma, relative=relative)
        off = abs(Adversary(PATTERNS[pattern]).run(calibrator, T) / T - 0.1)
        room = max(math.log(p / 1e-6), math.log(1 / p)) if relative else 1 - p
        assert off <= (room + gamma) / (gamma * T) + 1e-12
    calibrator = ConformalPID([0.9], eta=0.5, integral_gain=0.0)
    off = abs(Adversary(PATTERNS[pattern]).run(calibrator, T) / T - 0.1)
    assert off <= (4.001 + 0.5) / (0.5 * T) + 1e-12


def test_the_mean_error_is_the_masss_way_over_the_step():
    T, gamma = 400, 0.03
    forecast, returns = normal_forecast(T + 1), 2 * draws(T + 1, 1, 1)
    calibrator = AdaptiveConformal([0.9], gamma)
    calibrator.update(forecast, returns)
    hits = errors(AdaptiveConformal([0.9], gamma), forecast, returns)[0, :T].double().mean()
    alpha = calibrator.state_dict()["state.alpha"]
    torch.testing.assert_close(hits - 0.1, (0.1 - alpha.squeeze()) / (gamma * T))


def test_an_adversary_that_integrates_is_bounded_too():
    T, saturation = 80, 0.5
    calibrator = ConformalPID([0.9], eta=1e-9, saturation=saturation)
    off = abs(Adversary(PATTERNS["greedy"]).run(calibrator, T) / T - 0.1)
    assert off <= (saturation * math.pi * (T + 1) / (2 * math.log(T + 1)) + 1) / T


FASTER = {
    "adaptive": lambda: AdaptiveConformal(LEVELS),
    "relative": lambda: AdaptiveConformal(LEVELS, 1.0, relative=True),
    "aggregated": lambda: AggregatedAdaptiveConformal(LEVELS),
    "pid": lambda: ConformalPID(LEVELS, 0.3),
    "grouped": lambda: ConformalisedQuantiles(LEVELS, 150, groups=dict.fromkeys(GROUPS, "all")),
}


@pytest.mark.parametrize("name", FASTER)
def test_coverage_comes_back_after_volatility_doubles(name):
    D, N = 700, 3
    scale = torch.where(torch.arange(D) < 100, 1.0, 2.0).double()[:, None, None]
    forecast, returns = normal_forecast(D, N), scale * draws(D, 1, N)
    raw = torch.stack([returns < -forecast.value_at_risk(level) for level in LEVELS])[:, 300:].double().mean((1, 2, 3))
    hit = errors(FASTER[name](), forecast, returns)[:, 300:].double().mean((1, 2, 3))
    for k, level in enumerate(LEVELS):
        p = 1 - level
        assert raw[k] > 3 * p
        assert abs(hit[k] - p) < 4 * math.sqrt(p * (1 - p) / 1200)


@every
def test_the_future_changes_nothing(name):
    D, N = 40, 3
    forecast, returns = normal_forecast(D, N, (1, 5)), 3 * draws(D, 2, N)
    changed = returns.clone()
    known = known_at(forecast.state, forecast.horizons)
    changed[known > 25] = 17 * draws(int((known > 25).sum()), seed=1)
    first, second = (backtest(MADE[name](), forecast, r) for r in (returns, changed))
    for a, b in ((first.mass, second.mass), (first.shift, second.shift)):
        torch.testing.assert_close(a[:, :26], b[:, :26], rtol=0, atol=0)
    assert (first.mass[:, 26:] != second.mass[:, 26:]).any() or (first.shift[:, 26:] != second.shift[:, 26:]).any()


@every
def test_what_is_masked_changes_nothing(name):
    D, N = 50, 3
    mask = draws(D, N, seed=5) > -1
    forecast, returns = normal_forecast(D, N, mask=mask), 3 * draws(D, 1, N)
    hidden = torch.where(mask[:, None], returns, torch.inf)
    hidden[:, :, 2] = torch.nan  # no outcome at all
    returns[:, :, 2] = torch.nan
    whole, part = (backtest(MADE[name](), forecast, r) for r in (returns, hidden))
    torch.testing.assert_close(whole.mass, part.mass, rtol=0, atol=0)
    torch.testing.assert_close(whole.shift, part.shift, rtol=0, atol=0)
    untouched = normal_forecast(D).value_at_risk(0.95)[0, 0, 0]
    alone = part.value_at_risk(0.95)[:, 0, 2]
    if not name.startswith("scorecast"):
        torch.testing.assert_close(alone[mask[:, 2]], untouched.expand(int(mask[:, 2].sum())))
    assert alone[~mask[:, 2]].isnan().all()
    assert part.expected_shortfall(0.99)[mask[:, None]].isfinite().all()


@every
def test_nights_one_by_one_from_saved_states_are_the_backtest(name):
    D, N = 25, 3
    observed = draws(D, N, seed=3) > -1.2
    forecast = normal_forecast(D, N, (1, 4), observed=observed)
    returns = torch.where(observed[:, None], 3 * draws(D, 2, N), torch.nan)
    whole, known = backtest(MADE[name](), forecast, returns), known_at(forecast.state, forecast.horizons)
    state = MADE[name]().state_dict()
    for t in range(D):
        calibrator = MADE[name]()
        tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
        plain = {key: value for key, value in state.items() if key not in tensors}
        calibrator.load_state_dict(load(save(tensors)) | plain)
        first = forecast.dates.get_indexer(calibrator.awaited)[0] if len(calibrator.awaited) else t
        seen = slice(int(first), t + 1)
        there = torch.where(known[seen] <= t, returns[seen], torch.nan)
        calibrator.update(forecast.select(seen), there)
        tonight = calibrator.apply(forecast.select(slice(t, t + 1)))
        for level in LEVELS:
            torch.testing.assert_close(
                tonight.value_at_risk(level)[0], whole.value_at_risk(level)[t], equal_nan=True, rtol=1e-12, atol=0
            )
        state = calibrator.state_dict()
    assert len(state["pending.day"]) <= 2 * 4 + 10
    assert all(isinstance(value, torch.Tensor | str | int | list) for value in state.values())


def test_an_outcome_over_several_sessions_teaches_as_many_own_sessions_later():
    D, h = 30, 10
    observed = torch.ones(D, 2, dtype=torch.bool)
    observed[5:9, 1] = False
    forecast = normal_forecast(D, 2, (h,), observed=observed)
    returns = torch.full((D, 1, 2), torch.nan, dtype=torch.float64)
    returns[2] = -9.0
    made = backtest(AdaptiveConformal([0.95]), forecast, returns).mass[0, :, 0]
    for n, known in ((0, 12), (1, 16)):
        assert (made[:known, n] == made[0, n]).all()
        assert made[known, n] < made[0, n]


def test_a_session_teaches_once_however_many_closed_dates_forecast_it():
    observed = torch.tensor([[True], [False], [False], [True]])
    forecast = normal_forecast(4, observed=observed)
    for outcome, alpha in ((-9.0, 0.05 + 0.01 * (0.05 - 1)), (9.0, 0.05 + 0.01 * 0.05)):
        for first in (0, 1, 2):  # without a forecast or an outcome on the asset's own session, a closed date's teaches
            returns = torch.tensor([outcome] * 3 + [torch.nan]).reshape(4, 1, 1)
            returns[:first] = torch.nan
            forecast.mask[: first // 2] = False
            whole, nights = AdaptiveConformal([0.95], 0.01), AdaptiveConformal([0.95], 0.01)
            whole.update(forecast, returns)
            for t in range(1, 5):
                nights.update(forecast.select(slice(0, t)), returns[:t])
            for calibrator in (whole, nights):
                assert calibrator.state_dict()["state.alpha"].item() == pytest.approx(alpha)
        forecast.mask[:] = True


def test_masses_that_leave_the_unit_interval_give_finite_numbers():
    forecast = normal_forecast(40)
    for sign in (-1.0, 1.0):
        made = backtest(AdaptiveConformal([0.9], 0.3), forecast, torch.full((40, 1, 1), sign * 1e3))
        assert made.value_at_risk(0.9).isfinite().all()
        assert made.expected_shortfall(0.9).isfinite().all()
    assert (made.expected_shortfall(0.9) > made.value_at_risk(0.9)).all()


@every
def test_a_calibrated_forecast_has_the_frame_of_a_forecast(name):
    forecast, returns = normal_forecast(30, 3), 3 * draws(30, 1, 3)
    made = backtest(MADE[name](), forecast, returns)
    frame = made.to_frame()
    assert list(frame) == list(forecast.to_frame())
    assert sorted(frame["level"].unique()) == list(LEVELS)
    last = made.select(slice(-1, None))
    torch.testing.assert_close(last.value_at_risk(0.99), made.value_at_risk(0.99)[-1:])
    with pytest.raises(ValueError, match="calibrated at"):
        made.value_at_risk(0.9)


def test_assets_come_and_go():
    forecast, returns = normal_forecast(20, 3), 3 * draws(20, 1, 3)
    calibrator = AdaptiveConformal(LEVELS)
    calibrator.update(forecast, returns)
    later = normal_forecast(20, 3, assets=("A2", "NEW", "A0"))
    before, after = calibrator.apply(forecast).mass[:, 0, 0], calibrator.apply(later).mass[:, 0, 0]
    torch.testing.assert_close(after[:, [0, 2]], before[:, [2, 0]])
    torch.testing.assert_close(after[:, 1], torch.tensor([0.05, 0.01], dtype=torch.float64))


@every
def test_scores_of_the_training_set_are_refused(name):
    forecast, returns = normal_forecast(20, 3), draws(20, 1, 3)
    calibrator = MADE[name](trained_through=forecast.dates[3])
    with pytest.raises(ValueError, match=r"4 of the 20 .* trained"):
        calibrator.update(forecast, returns)
    calibrator.update(forecast.select(slice(4, None)), returns[4:])
    assert len(calibrator.awaited)


def test_the_band_of_a_calibrated_value_at_risk_is_of_draws_corrected_alike():
    members = [normal_forecast(30, 2, (1, 5), scale=s) for s in (1.0, 2.0, 4.0)]
    several, returns = mixed([members[0], mixed(members[1:])]), 9 * draws(30, 2, 2)
    for calibrator in (AdaptiveConformal(LEVELS, 0.002), ConformalPID(LEVELS)):
        made = backtest(calibrator, several, returns)
        mass, shift = made.mass[1], made.shift[1]
        for bound, member in zip(made.epistemic_interval(0.99), members[::2], strict=True):
            torch.testing.assert_close(bound, shift - member.distribution.icdf(mass))
        raw = several.epistemic_interval(0.99)[0]
        assert (made.epistemic_interval(0.99)[0][-1] > raw[-1]).all()
        for one, two in zip(made.decompose(), several.decompose(), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_what_has_been_corrected_is_not_corrected_again_or_mixed():
    forecast, returns = normal_forecast(5), draws(5, 1, 1)
    made = backtest(AdaptiveConformal(LEVELS), forecast, returns)
    points = torch.tensor([0.0, 0.1, 0.9, 1.0], dtype=torch.float64)
    for change in (
        lambda: mixed([made, forecast]),
        lambda: mixed([forecast, made]),
        lambda: recalibrate(made, PitMap.identity(points)),
        lambda: AdaptiveConformal(LEVELS).update(made, returns),
        lambda: AdaptiveConformal(LEVELS).apply(made),
    ):
        with pytest.raises(ValueError, match="takes raw forecasts"):
            change()
    assert mixed([made]) is made


def test_what_does_not_fit_is_named():
    forecast, returns = normal_forecast(20), draws(20, 1, 1)
    calibrator = AdaptiveConformal(LEVELS)
    with pytest.raises(ValueError, match="returns are"):
        calibrator.update(forecast, returns[:, :, [0, 0]])
    calibrator.update(forecast.select(slice(0, 10)), returns[:10])
    with pytest.raises(ValueError, match="are awaited"):
        calibrator.update(forecast.select(slice(12, None)), returns[12:])
    with pytest.raises(ValueError, match="not new"):
        backtest(calibrator, forecast, returns)
    with pytest.raises(ValueError, match="horizons"):
        calibrator.apply(normal_forecast(3, horizons=(2,)))
    with pytest.raises(ValueError, match="method"):
        ConformalPID(LEVELS).load_state_dict(calibrator.state_dict())
    with pytest.raises(ValueError, match="other settings"):
        AdaptiveConformal(LEVELS, relative=True).load_state_dict(calibrator.state_dict())
    for make in (
        lambda: AdaptiveConformal([1.5]),
        lambda: AdaptiveConformal([0.9, 0.9]),
        lambda: AdaptiveConformal([0.9], [0.1, 0.2]),
        lambda: AdaptiveConformal([0.99], floor=0.02),
        lambda: AggregatedAdaptiveConformal([0.9], []),
        lambda: ConformalPID([0.9], saturation=0.0),
        lambda: ConformalisedQuantiles([0.9], half_life=-1.0),
    ):
        with pytest.raises(ValueError, match="give"):
            make()
