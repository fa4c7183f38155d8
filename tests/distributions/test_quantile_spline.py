"""Quantile splines: the quantiles they are given, the base they contain, the errors they raise."""

import math

import pytest
import torch
from torch.distributions import Normal

from qtorch.distributions import QuantileSpline, StudentT, log_cdf, partial_mean, tail_mean, take

MASSES = torch.tensor([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99], dtype=torch.float64)


def quantiles(*batch, dtype=torch.float64):
    return torch.cumsum(torch.rand(*batch, 7, dtype=dtype) + 0.05, -1) - 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("df", [None, 3.0])
def test_it_passes_through_the_quantiles_it_is_given(dtype, df):
    given = quantiles(4, 3, dtype=dtype)
    law = QuantileSpline.from_quantiles(MASSES, given, None if df is None else StudentT(torch.full((3,), df).to(dtype)))
    tolerance = 1e-13 if dtype == torch.float64 else 1e-6
    for k, mass in enumerate(MASSES.to(dtype)):
        torch.testing.assert_close(law.icdf(mass), given[..., k], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(law.cdf(given[..., k]), mass.expand(4, 3), rtol=tolerance, atol=tolerance)
    assert law.mean.dtype == law.rsample().dtype == law.entropy().dtype == dtype


@pytest.mark.parametrize(
    "base", [Normal(torch.zeros(()).double(), 1.0), StudentT(torch.tensor(4.0).double(), 0.3, 2.0)]
)
def test_an_identity_spline_is_its_base(base):
    knots = torch.linspace(-2, 2, 6, dtype=torch.float64)
    p = torch.tensor([1e-12, 1e-3, 0.2, 0.5, 0.7, 0.999], dtype=torch.float64)
    law = QuantileSpline(knots, knots, torch.ones_like(knots), base)
    through = QuantileSpline.from_quantiles(MASSES, base.icdf(MASSES), base)
    x = torch.linspace(-30, 30, 61, dtype=torch.float64)
    for spline in (law, through):
        torch.testing.assert_close(spline.log_prob(x), base.log_prob(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(spline.log_cdf(x), log_cdf(base, x), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(spline.mean, base.mean, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(spline.variance, base.variance, rtol=1e-10, atol=0)
        torch.testing.assert_close(spline.entropy(), base.entropy(), rtol=1e-10, atol=0)
        torch.testing.assert_close(tail_mean(spline, p), tail_mean(base, p), rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(partial_mean(spline, x), partial_mean(base, x), rtol=1e-11, atol=1e-12)


def test_tails_are_the_bases_through_the_outer_two_quantiles():
    given = quantiles()
    law = QuantileSpline.from_quantiles(MASSES, given, StudentT(torch.tensor(3.0).double()))
    z = StudentT(torch.tensor(3.0).double()).icdf(torch.tensor([1e-9, 0.01, 0.05], dtype=torch.float64))
    expected = given[0] + (given[1] - given[0]) * (z[0] - z[1]) / (z[2] - z[1])
    torch.testing.assert_close(law.icdf(torch.tensor(1e-9, dtype=torch.float64)), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_scores_round_trip_far_into_the_tails(dtype, tolerance):
    law = QuantileSpline.from_quantiles(MASSES, quantiles(dtype=dtype), StudentT(torch.tensor(2.0, dtype=dtype)))
    x = torch.tensor([-1e6, -100.0, -1.0, 0.2, 1.5], dtype=torch.float64)
    torch.testing.assert_close(law._icdf(law._cdf(x)), x, rtol=1e-11, atol=1e-12)
    out = law.icdf(law.cdf(x[:-1].to(dtype)))
    torch.testing.assert_close(out, x[:-1].to(dtype), rtol=max(1e-11, tolerance), atol=tolerance)


def test_moments_of_a_normal_base_by_antithetic_simulation():
    law = QuantileSpline.from_quantiles(MASSES, quantiles())
    u = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    x = law.icdf(u)
    assert law.mean.item() == pytest.approx(x.mean().item(), abs=1e-6)
    assert law.variance.item() == pytest.approx(x.var().item(), abs=1e-4)
    assert tail_mean(law, 0.05).item() == pytest.approx(x[:50_000].mean().item(), abs=1e-5)


def test_draws_differentiate_in_quantiles_and_base():
    given = quantiles(2).requires_grad_()
    df = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    law = QuantileSpline.from_quantiles(MASSES, given, StudentT(df))
    (law.rsample((100,)).sum() + law.variance.sum() + law.entropy().sum()).backward()
    assert given.grad.isfinite().all()
    assert (given.grad != 0).all()
    assert df.grad.isfinite()


def test_a_part_of_a_batch_with_an_ellipsis():
    law = QuantileSpline.from_quantiles(MASSES, quantiles(4, 3), StudentT(torch.rand(3).double() + 3))
    part = take(law, (..., 1))
    assert part.batch_shape == (4,)
    torch.testing.assert_close(part.mean, law.mean[:, 1])


def test_crossing_quantiles_are_told_where():
    crossing = quantiles(4, 3)
    crossing[2, 1, 3] = crossing[2, 1, 4]
    with pytest.raises(
        ValueError, match=r"increasing quantiles; 1 of 72 .* between masses 0\.5 and 0\.75 in element \(2, 1\)"
    ):
        QuantileSpline.from_quantiles(MASSES, crossing)
    missing = quantiles(2)
    missing[1, 0] = math.nan
    with pytest.raises(ValueError, match=r"between masses 0\.01 and 0\.05 in element \(1,\) of the batch, from nan"):
        QuantileSpline.from_quantiles(MASSES, missing)
    with pytest.raises(ValueError, match=r"increasing probabilities; .* between points 6 and 7"):
        QuantileSpline.from_quantiles([*MASSES.tolist(), 0.99], torch.arange(8.0))
    with pytest.raises(ValueError, match=r"two or more masses inside \(0, 1\)"):
        QuantileSpline.from_quantiles([0.0, 0.5], torch.arange(2.0))
    with pytest.raises(ValueError, match=r"increasing knots; .* between points 0 and 1, from 1 to 0"):
        QuantileSpline(torch.tensor([1.0, 0.0]), torch.arange(2.0), torch.ones(2))
    with pytest.raises(ValueError, match=r"finite slopes above 0\.0; 1 of 2"):
        QuantileSpline(torch.arange(2.0), torch.arange(2.0), torch.tensor([1.0, 0.0]))
