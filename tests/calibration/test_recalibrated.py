"""Recalibrated laws and the maps that make them."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import optimize, stats
from torch.distributions import Normal

from qtorch.calibration import PitMap, Recalibrated, fit_recalibration, recalibrate
from qtorch.calibration.fitting import MASSES as MASSES_OF_MAPS
from qtorch.distributions import JohnsonSU, StudentT, concatenate, log_cdf, stack, tail_mean, take
from qtorch.training import mixed
from tests.calibration.markets import draws, normal_forecast

KNOTS = torch.tensor([0.0, 0.01, 0.1, 0.4, 0.7, 0.95, 1.0], dtype=torch.float64)
VALUES = torch.tensor([0.0, 0.03, 0.15, 0.35, 0.6, 0.9, 1.0], dtype=torch.float64)
MASSES = torch.tensor([1e-12, 1e-4, 0.01, 0.03, 0.3, 0.5, 0.77, 0.95, 0.9999], dtype=torch.float64)


def double(x):
    return torch.tensor(x, dtype=torch.float64)


BASES = {
    "normal": lambda: Normal(double(0.1), double(1.5)),
    "student": lambda: StudentT(double(4.0), double(0.1), double(1.5)),
    "johnson": lambda: JohnsonSU(double(0.4), double(1.5), double(0.2), double(1.3)),
}
bases = pytest.mark.parametrize("name", BASES)


def law_of(name):
    return Recalibrated(BASES[name](), PitMap(KNOTS, VALUES))


@bases
def test_quantiles_invert_and_tails_add_up(name):
    law = law_of(name)
    x = law.icdf(MASSES)
    torch.testing.assert_close(law.cdf(x), MASSES, rtol=1e-10, atol=0)
    torch.testing.assert_close(log_cdf(law, x), MASSES.log(), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(law.log_sf(x), torch.log1p(-MASSES), rtol=1e-9, atol=1e-12)
    assert law.icdf(double(1.2)).isnan()


@bases
def test_the_density_integrates_to_cdf_moments_and_tail_means(name):
    law, (nodes, weights) = law_of(name), np.polynomial.legendre.leggauss(200)
    edges = law.base.icdf(KNOTS[1:-1]).tolist()

    def moment(power, stop=1e12):
        """By Gauss-Legendre in asinh x, where tails are smooth, between the knots."""
        cuts = np.arcsinh([-1e12, *(e for e in edges if e < stop), stop])
        a, b = torch.from_numpy(cuts[:-1, None]), torch.from_numpy(cuts[1:, None])
        t = a + (b - a) * (torch.from_numpy(nodes) + 1) / 2
        x = torch.sinh(t)
        values = x**power * torch.exp(law.log_prob(x)) * torch.cosh(t)
        return ((b - a) / 2 * torch.from_numpy(weights) * values).sum().item()

    assert moment(0) == pytest.approx(1, abs=1e-9)
    assert law.mean.item() == pytest.approx(moment(1), abs=1e-8)
    assert law.variance.item() == pytest.approx(moment(2) - moment(1) ** 2, rel=1e-7)
    for p in (0.01, 0.03, 0.2, 0.97):
        q = law.icdf(double(p)).item()
        assert moment(0, q) == pytest.approx(p, abs=1e-9)
        assert tail_mean(law, p).item() == pytest.approx(moment(1, q) / p, rel=1e-7)


@bases
def test_its_entropy_is_that_of_its_draws(name):
    law = law_of(name)
    u = torch.arange(0.5, 200_000, dtype=torch.float64) / 200_000
    assert law.entropy().item() == pytest.approx(-law.log_prob(law.icdf(u)).mean().item(), abs=1e-4)


def test_tails_keep_their_index_and_far_tails_their_digits():
    law, base = law_of("student"), BASES["student"]()
    for x in (-1e3, -1e6):
        torch.testing.assert_close(law.cdf(double(x)) / base.cdf(double(x)), double(3.0))
    torch.testing.assert_close(law.log_sf(double(1e6)), base.log_sf(double(1e6)) + math.log(0.1 / 0.05))
    far = law_of("normal")
    assert far.log_cdf(double(-80.0)) == pytest.approx(stats.norm.logcdf(-80, 0.1, 1.5) + math.log(3), rel=1e-12)
    infinite = Recalibrated(StudentT(double(1.5), double(0.0), double(1.0)), PitMap(KNOTS, VALUES))
    assert infinite.variance == math.inf


def test_no_map_is_no_change():
    base = BASES["johnson"]()
    law, x = Recalibrated(base, PitMap.identity(KNOTS)), double([-4.0, 0.0, 0.2, 6.0])
    torch.testing.assert_close(law.log_prob(x), base.log_prob(x))
    torch.testing.assert_close(law.cdf(x), base.cdf(x))
    for name in ("mean", "variance"):
        torch.testing.assert_close(getattr(law, name), getattr(base, name), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(law.entropy(), base.entropy(), rtol=1e-6, atol=1e-6)


def test_gradients():
    def make(inner, loc, scale):
        values = torch.cat([VALUES[:1], inner, VALUES[-1:]])
        return Recalibrated(StudentT(double(5.0), loc, scale), PitMap(KNOTS, values))

    x = double([-4.0, 0.4])
    inputs = [v.clone().requires_grad_() for v in (VALUES[1:-1], double(0.1), double(1.3))]
    for function in (
        lambda *a: make(*a).log_prob(x),
        lambda *a: make(*a).cdf(x),
        lambda *a: make(*a).icdf(MASSES[3:5]),
        lambda *a: tail_mean(make(*a), 0.05),
        lambda *a: make(*a).mean,
    ):
        assert torch.autograd.gradcheck(function, inputs, atol=1e-6)


def test_it_is_taken_apart_and_joined_in_batches():
    base = StudentT(double(5.0), draws(4, 3), torch.ones(4, 3, dtype=torch.float64))
    law = Recalibrated(base, PitMap(KNOTS, torch.stack([VALUES, KNOTS, VALUES])))
    x = double(-0.7)
    torch.testing.assert_close(take(law, slice(1, 3)).cdf(x), law.cdf(x)[1:3])
    torch.testing.assert_close(concatenate([take(law, slice(0, 1)), take(law, slice(1, 4))]).cdf(x), law.cdf(x))
    torch.testing.assert_close(stack([law, law]).cdf(x), law.cdf(x)[..., None].expand(4, 3, 2))
    torch.testing.assert_close(law.cdf(law.rsample((5,)).detach()).shape, torch.Size((5, 4, 3)))


def test_float_parameters_give_float_numbers():
    law = Recalibrated(StudentT(torch.tensor(5.0), torch.zeros(3)), PitMap(KNOTS.float(), VALUES.float()))
    x = torch.tensor([-1.0, 0.0, 2.0])
    assert {law.log_prob(x).dtype, law.icdf(x.sigmoid()).dtype, law.mean.dtype, law.variance.dtype} == {torch.float32}


def test_the_map_is_scipys_isotonic_regression_shrunk_to_none():
    T, masses, prior = 300, (0.1, 0.25, 0.5, 0.75, 0.9), 20.0
    pits = torch.rand(T, 2, dtype=torch.float64) ** 2
    fitted = fit_recalibration(pits, masses=masses, prior=prior)
    for n in range(2):
        ordered = np.sort(pits[:, n].numpy())
        regressed = optimize.isotonic_regression(np.arange(1, T + 1) / T).x
        share = [regressed[ordered <= u][-1] for u in masses]
        expected = (T * np.array(share) + prior * np.array(masses)) / (T + prior)
        np.testing.assert_allclose(fitted.values[n, 1:-1], expected, rtol=1e-12)


def test_recalibrated_transforms_are_uniform_and_masked_ones_do_not_count():
    T, N = 40_000, 3
    forecast, returns = normal_forecast(T, N), 1.2 * draws(T, 1, N)
    masses = (0.001, 0.0025, *MASSES_OF_MAPS)  # down to where the 1 % quantile of wider returns lies
    pits = forecast.pit(returns)
    mask = draws(T, 1, N, seed=4) > -0.5
    groups = torch.zeros(N, dtype=torch.int64)
    fitted = fit_recalibration(pits[:20_000], mask[:20_000], groups, masses=masses)
    hidden = torch.where(mask, pits, torch.nan)
    torch.testing.assert_close(
        fit_recalibration(hidden[:20_000], groups=groups, masses=masses).values, fitted.values, rtol=0, atol=0
    )
    later = recalibrate(forecast.select(slice(20_000, None)), fitted)
    u = later.pit(returns[20_000:])
    assert stats.kstest(u.flatten().numpy(), "uniform").statistic < 0.025
    assert stats.kstest(pits[20_000:].flatten().numpy(), "uniform").statistic > 0.035
    for level in (0.95, 0.99):
        beyond = (returns[20_000:] < -later.value_at_risk(level)).double().mean().item()
        assert beyond == pytest.approx(1 - level, rel=0.25)
    frame = later.select(slice(0, 2)).to_frame()
    assert np.isfinite(frame[["value_at_risk", "expected_shortfall", "volatility"]]).all(axis=None)


def test_a_recalibrated_mixture_says_that_its_draws_are_gone():
    several = mixed([normal_forecast(3), normal_forecast(3, scale=2.0)])
    made = recalibrate(several, PitMap(KNOTS, VALUES))
    assert several.draws == 2
    assert made.draws == 1
    with pytest.raises(ValueError, match="Recalibrated, has no draws .* before the forecast is recalibrated"):
        made.epistemic_interval(0.99)


def test_groups_share_a_map_and_recent_transforms_weigh_more():
    pits = torch.rand(400, 2, 3, dtype=torch.float64)
    pits[200:] = pits[200:] ** 3
    groups = torch.tensor([1, -1, 1])
    fitted = fit_recalibration(pits, groups=groups)
    torch.testing.assert_close(fitted.values[:, 0], fitted.values[:, 2], rtol=0, atol=0)
    both = torch.cat([pits[:, :, 0], pits[:, :, 2]])
    torch.testing.assert_close(fitted.values[:, 0], fit_recalibration(both).values)
    torch.testing.assert_close(fitted.values[:, 1], fit_recalibration(pits[:, :, 1]).values)
    recent = fit_recalibration(pits, half_life=50.0, prior=1.0).values
    assert ((recent - fit_recalibration(pits[200:], prior=1.0).values).abs() < 0.12).all()


def test_a_session_counts_once_however_many_closed_rows_forecast_it():
    T = 60
    observed = draws(T, 2, seed=3) > -0.6
    state = normal_forecast(T, 2, observed=observed).state
    pits = torch.rand(T, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pits[20] = torch.nan
    once = torch.where(observed[:, None], pits, torch.nan)
    for n in range(2):  # where the session's own row has none, the first closed one's counts
        if not observed[21, n]:
            once[21, :, n] = pits[21, :, n]
    fitted = fit_recalibration(pits, state=state)
    torch.testing.assert_close(fitted.values, fit_recalibration(once).values, rtol=0, atol=0)
    assert (fitted.values != fit_recalibration(pits).values).any()


def test_what_does_not_fit_is_named():
    pits, dates = torch.rand(20, 1), pd.bdate_range("2020-01-01", periods=20)
    for arguments, message in (
        ({"trained_through": dates[5]}, "needs the dates"),
        ({"trained_through": dates[5], "dates": dates}, "6 of the 20"),
        ({"masses": (0.5, 0.2)}, "increasing"),
        ({"prior": 0.0}, "positive"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_recalibration(pits, **arguments)
    with pytest.raises(ValueError, match="lie in"):
        fit_recalibration(pits + 1.5)
    with pytest.raises(ValueError, match="PitMap increase"):
        PitMap(KNOTS, VALUES.flip(0))
