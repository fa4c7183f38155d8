from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from torch.distributions import Normal

from qtorch.distributions import SkewedStudentT
from qtorch.risk import expected_shortfall, expectile, exponential_spectrum, spectral_risk, value_at_risk


def double(x) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def test_measures_are_positive_losses_at_a_confidence():
    law = Normal(double(0.001), 0.02)
    z = stats.norm.ppf(0.01)
    assert value_at_risk(law, 0.99).item() == pytest.approx(-(0.001 + 0.02 * z), rel=1e-9)
    assert expected_shortfall(law, 0.99).item() == pytest.approx(-(0.001 - 0.02 * stats.norm.pdf(z) / 0.01), rel=1e-9)
    for level in (0.0, 1.0, 99.0):
        for measure in (value_at_risk, expected_shortfall, expectile):
            with pytest.raises(ValueError, match="confidence inside"):
                measure(law, level)


@pytest.mark.parametrize("df", [1.3, 1.5, 2.1, 4.0, 30.0])
@pytest.mark.parametrize("skew", [1.0, 0.8])
def test_the_step_spectrum_is_the_expected_shortfall(df, skew):
    law = SkewedStudentT(double(df), 0.001, 0.01, skew)
    spectral = spectral_risk(law, lambda p: 40.0 * (p <= 0.025), breaks=(0.025,))
    torch.testing.assert_close(spectral, expected_shortfall(law, 0.975), rtol=1e-9, atol=0)


@pytest.mark.parametrize("law", [stats.norm(0.1, 2.0), stats.t(1.5, 0.1, 2.0), stats.t(4.0, 0.1, 2.0)])
@pytest.mark.parametrize("k", [0.5, 5.0, 100.0])
def test_exponential_spectral_risk_is_scipys_integral(law, k):
    def phi(p):
        return k * np.exp(-k * p) / -np.expm1(-k)

    def integrand(s):  # both tails at mass exp(-s); the laws are symmetric about 0.1
        u = np.exp(-s)
        return u * (phi(u) * law.ppf(u) + phi(1 - u) * (0.2 - law.ppf(u)))

    ends = [np.log(2), 2, 5, 10, 20, 40, 80, 160]
    parts = [integrate.quad(integrand, a, b, epsabs=1e-14, epsrel=1e-12)[0] for a, b in pairwise(ends)]
    if law.dist.name == "norm":
        ours = Normal(double(0.1), 2.0)
    else:
        ours = SkewedStudentT(double(law.args[0]), 0.1, 2.0, 1.0)
    assert spectral_risk(ours, exponential_spectrum(k)).item() == pytest.approx(-sum(parts), rel=1e-8, abs=1e-9)


def test_spectral_risk_is_coherent_arithmetic_on_a_batch_with_gradients():
    df, loc, scale = double([3.0, 6.0]), double([0.0, 0.1]), double([1.0, 2.0])
    phi = exponential_spectrum(20.0)
    risk = spectral_risk(SkewedStudentT(df, loc, scale, 0.9), phi)
    shifted = spectral_risk(SkewedStudentT(df, 3 * loc + 1, 3 * scale, 0.9), phi)
    torch.testing.assert_close(shifted, 3 * risk - 1, rtol=1e-12, atol=1e-12)
    inputs = [x.clone().requires_grad_() for x in (df, loc, scale)]
    assert torch.autograd.gradcheck(lambda *a: spectral_risk(SkewedStudentT(*a, 0.9), phi), inputs)


@pytest.mark.parametrize(
    ("spectrum", "breaks", "message"),
    [
        (lambda p: 2 * p, (), "rises"),
        (lambda p: 3 - 4 * p, (), "not negative"),
        (lambda p: torch.ones_like(p) * 0.9, (), "integrates to 0.9"),
        (lambda p: 40.0 * (p <= 0.025), (1.5,), "ascending"),
    ],
)
def test_what_is_no_spectrum_is_refused(spectrum, breaks, message):
    with pytest.raises(ValueError, match=message):
        spectral_risk(Normal(double(0.0), 1.0), spectrum, breaks)
    with pytest.raises(ValueError, match="risk_aversion"):
        exponential_spectrum(-1.0)


@pytest.mark.parametrize("tau", [1e-4, 0.00145, 0.5, 0.9])
@pytest.mark.parametrize("law", [stats.norm(0.1, 2.0), stats.t(2.5, 0.1, 2.0)])
def test_an_expectile_solves_its_first_order_condition(law, tau):
    def gap(e):
        above = integrate.quad(law.sf, e, np.inf, epsabs=1e-13, limit=500)[0]
        return tau * above - (1 - tau) * integrate.quad(law.cdf, -np.inf, e, epsabs=1e-13, limit=500)[0]

    root = optimize.brentq(gap, -200, 200, xtol=1e-13)
    ours = Normal(double(0.1), 2.0) if law.dist.name == "norm" else SkewedStudentT(double(law.args[0]), 0.1, 2.0)
    assert expectile(ours, 1 - tau).item() == pytest.approx(-root, rel=1e-8, abs=1e-9)


def test_expectiles_by_the_paper_and_by_closed_form():
    # Bellini and Di Bernardino (2017): tau = 0.00145 gives the normal's value at risk at 99 %.
    normal = Normal(double(0.0), 1.0)
    assert expectile(normal, 0.99855).item() == pytest.approx(stats.norm.ppf(0.99), abs=1e-3)
    # Koenker (1993): for the t with two degrees of freedom, expectiles are quantiles.
    for level in (0.9, 0.99, 0.999):
        law = SkewedStudentT(double(2.0))
        assert expectile(law, level).item() == pytest.approx(stats.t.ppf(level, 2), rel=1e-9)
    assert expectile(Normal(double(0.3), 1.0), 0.5).item() == pytest.approx(-0.3)


def test_expectiles_are_equivariant_ordered_and_differentiable():
    df, scale = double([2.5, 9.0]), double([1.0, 0.5])
    law, mapped = SkewedStudentT(df, 0.1, scale, 0.9), SkewedStudentT(df, 0.3 * 0.1 + 2, 0.3 * scale, 0.9)
    torch.testing.assert_close(expectile(mapped, 0.999), 0.3 * expectile(law, 0.999) - 2)
    assert (expectile(law, 0.999) > expectile(law, 0.99)).all()
    inputs = [double(x).requires_grad_() for x in (4.0, 0.9)]
    assert torch.autograd.gradcheck(lambda df, skew: expectile(SkewedStudentT(df, 0.1, 2.0, skew), 0.9), inputs)
