from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import Categorical, Distribution, Exponential, Gumbel, Laplace, MixtureSameFamily, Normal
from torch.distributions import StudentT as TorchStudentT

from qtorch.distributions import (
    Affine,
    Empirical,
    GeneralizedPareto,
    HansenSkewedT,
    JohnsonSU,
    Mixture,
    QuantileSpline,
    SkewedStudentT,
    SplicedTails,
    StudentT,
)
from qtorch.risk import crps, quantile_weighted_crps, register_crps


def double(x) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


MIXTURE = MixtureSameFamily(Categorical(double([0.3, 0.7])), Normal(double([0.0, 1.0]), double([1.0, 2.0])))

LAWS = {
    "normal": (Normal(double(0.1), 1.2), stats.norm(0.1, 1.2).cdf),
    "laplace": (Laplace(double(0.1), 1.2), stats.laplace(0.1, 1.2).cdf),
    "exponential": (Exponential(double(0.7)), stats.expon(scale=1 / 0.7).cdf),
    "student t": (TorchStudentT(double(3.0), 0.1, 1.2), stats.t(3, 0.1, 1.2).cdf),
    "student t 1.5": (TorchStudentT(double(1.5), 0.1, 1.2), stats.t(1.5, 0.1, 1.2).cdf),
    "two-piece": (SkewedStudentT(double(2.5), 0.1, 1.2, 0.8), None),
    "affine": (Affine(SkewedStudentT(double(2.5), 0.0, 1.0, 1.3), 0.1, 1.2), None),
    "normal mixture": (MIXTURE, lambda x: 0.3 * stats.norm.cdf(x) + 0.7 * stats.norm.cdf(x, 1, 2)),
    "mixture": (
        Mixture(double([0.3, 0.7]), Normal(double([0.0, 1.0]), double([1.0, 2.0]))),
        lambda x: 0.3 * stats.norm.cdf(x) + 0.7 * stats.norm.cdf(x, 1, 2),
    ),
    "student": (StudentT(double(3.0), 0.1, 1.2), stats.t(3, 0.1, 1.2).cdf),
    "hansen": (HansenSkewedT(double(4.0), double(-0.2)), None),
    "pareto": (GeneralizedPareto(double(-1.0), 1.2, 0.3), stats.genpareto(0.3, -1.0, 1.2).cdf),
    "spliced": (SplicedTails(SkewedStudentT(double(3.0), 0.1, 1.2, 0.8), 0.05, 0.3, 0.1, -0.2), None),
    "spliced below": (SplicedTails(StudentT(double(3.0), 0.1, 1.2), 0.05, 0.4), None),
    "spline": (QuantileSpline(*double([[-1.5, 0.4, 2.0], [-3.0, 0.2, 2.5], [2.0, 1.3, 1.1]])), None),
    "spline of a t": (
        QuantileSpline.from_quantiles([0.05, 0.5, 0.9], double([-3.0, 0.2, 2.5]), StudentT(double(3.0))),
        None,
    ),
    "johnson, by quadrature": (JohnsonSU(double(0.3), 1.5, 0.1, 1.2), stats.johnsonsu(0.3, 1.5, 0.1, 1.2).cdf),
    "t mixture, by quadrature": (
        Mixture(double([0.3, 0.7]), StudentT(double([3.0, 6.0]), double([0.0, 1.0]), double([1.0, 2.0]))),
        lambda x: 0.3 * stats.t.cdf(x, 3) + 0.7 * stats.t.cdf(x, 6, 1, 2),
    ),
    "gumbel, by quadrature": (Gumbel(double(0.1), 1.2, validate_args=False), stats.gumbel_r(0.1, 1.2).cdf),
}


def reference(cdf, y: float) -> float:
    """The integral of (F - 1{y <= x})^2 by scipy, in pieces."""
    ends = sorted([-1e8, -1e6, -1e4, -1e3, -100, -20, -5, -2, -1, 0, 0.1, 1, 2, 5, 20, 100, 1e3, 1e4, 1e6, 1e8, y])
    return sum(
        integrate.quad(lambda x, below=b <= y: (cdf(x) if below else 1 - cdf(x)) ** 2, a, b, epsabs=1e-14, limit=300)[0]
        for a, b in pairwise(ends)
    )


@pytest.mark.parametrize("y", [-30.0, -1.7, 0.1, 4.0])
@pytest.mark.parametrize("name", LAWS)
def test_crps_is_scipys_integral(name, y):
    law, cdf = LAWS[name]
    if cdf is None:
        grid = np.concatenate([-np.geomspace(1e8, 1e-3, 4000), [0], np.geomspace(1e-3, 1e8, 4000)]) + 0.1
        x = double(np.union1d(grid, [y]))
        below = (x[1:] <= y).double()
        nodes, weights = np.polynomial.legendre.leggauss(8)
        points = x[:-1, None] + x.diff()[:, None] * double((nodes + 1) / 2)
        F = law.cdf(points.flatten()).reshape(points.shape)
        height = torch.where(below[:, None] > 0, F, 1 - F) ** 2
        expected = (height @ double(weights / 2) * x.diff()).sum().item()
    else:
        with np.errstate(over="ignore"):
            expected = reference(cdf, y)
    assert crps(law, double(y)).item() == pytest.approx(expected, rel=1e-8)


def test_closed_forms_are_twice_the_integrated_pinball_losses():
    law = SkewedStudentT(double([1.5, 3.0, 30.0]), 0.1, 1.2)
    y = double([-3.0, 0.2, 1.0]).unsqueeze(-1)
    torch.testing.assert_close(quantile_weighted_crps(law, y, torch.ones_like), crps(law, y), rtol=1e-9, atol=0)


def test_emphasis_adds_up_and_looks_left():
    law, y = Normal(double(0.0), 1.0), double([-3.0, 0.0, 3.0])
    left, right = (quantile_weighted_crps(law, y, w) for w in (lambda p: (1 - p) ** 2, lambda p: p**2))
    centre = quantile_weighted_crps(law, y, lambda p: p * (1 - p))
    torch.testing.assert_close(left + right + 2 * centre, crps(law, y), rtol=1e-9, atol=1e-12)
    assert left[0] > right[0]
    torch.testing.assert_close(left, right.flip(0))
    # Gneiting and Ranjan (2011), equation 17, by scipy.
    for k, outcome in enumerate(y.tolist()):
        value, _ = integrate.quad(
            lambda p, o=outcome: 2 * (1 - p) ** 2 * ((o <= stats.norm.ppf(p)) - p) * (stats.norm.ppf(p) - o),
            0,
            1,
            points=[stats.norm.cdf(outcome)],
            epsabs=1e-12,
        )
        assert left[k].item() == pytest.approx(value, rel=1e-8)


def test_crps_of_a_sample_is_the_double_sum():
    x = torch.randn(3, 40, dtype=torch.float64)
    y = torch.randn(3, dtype=torch.float64)
    pairs = (x[:, :, None] - x[:, None, :]).abs().mean((1, 2))
    torch.testing.assert_close(crps(Empirical(x), y), (x - y[:, None]).abs().mean(1) - pairs / 2)
    holed = torch.cat([x, torch.full((3, 5), torch.nan, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(crps(Empirical(holed), y), crps(Empirical(x), y))


@pytest.mark.parametrize("along", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "law",
    [
        lambda loc, scale: Normal(loc, scale),
        lambda loc, scale: TorchStudentT(2.5 * torch.ones_like(loc), loc, scale),
        lambda loc, scale: SkewedStudentT(2.5 + scale, loc, scale, 0.9),
        lambda loc, scale: Gumbel(loc, scale),
        lambda loc, scale: SplicedTails(StudentT(4 + loc, loc, scale), 0.1, 0.1 * scale, 0.05 * scale, 0.2 + loc),
        lambda loc, scale: QuantileSpline.from_quantiles(
            [0.1, 0.6, 0.9], torch.stack((loc - scale, loc, loc + 2 * scale), -1), StudentT(4 + scale)
        ),
    ],
)
def test_crps_is_a_differentiable_loss(law, along):
    """Along random directions, or element by element."""
    y = double([-2.0, 0.3, 1.0])
    parameters = [double([0.0, 0.1, 0.5]).requires_grad_(), double([1.0, 0.5, 2.0]).requires_grad_()]
    assert torch.autograd.gradcheck(lambda loc, scale: crps(law(loc, scale), y), parameters, fast_mode=along)


def test_crps_of_weighted_scenarios_is_that_of_repeated_ones():
    x, y, weights = torch.randn(30, dtype=torch.float64), double(0.2), torch.arange(30) % 3
    repeated = crps(Empirical(x.repeat_interleave(weights)), y)
    torch.testing.assert_close(crps(Empirical(x, weights.double()), y), repeated)


def test_crps_is_masked_and_scales_with_the_unit():
    law, y = SkewedStudentT(double(4.0), 0.0, 0.01, 0.9), double([0.01, torch.nan, -0.02])
    mask = torch.tensor([True, True, False])
    score = crps(law, y, mask)
    assert score.isnan().tolist() == [False, True, True]
    torch.testing.assert_close(crps(Affine(law, 0.0, 100.0), 100 * y, mask), 100 * score, equal_nan=True)
    weighted = quantile_weighted_crps(law, y, torch.ones_like, mask)
    torch.testing.assert_close(weighted, score, equal_nan=True, rtol=1e-6, atol=0)


def test_a_registered_closed_form_is_taken():
    class Known(Distribution):
        arg_constraints = {}

    register_crps(Known)(lambda law, y: y + 1)
    assert crps(Known(validate_args=False), double(2.0)).item() == 3
