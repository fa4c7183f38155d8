import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from qtorch.distributions import Affine, ExpMinusOne, Mixture, NormalInverseGaussian, StudentT, log_moment_generating
from qtorch.distributions.bessel import scaled_k0, scaled_k1
from tests.distributions.test_families import double

PARAMETERS = (1.3, -0.3, 0.1, 2.0)


def test_it_is_scipys():
    law, reference = NormalInverseGaussian(*double(*PARAMETERS)), stats.norminvgauss(*PARAMETERS)
    x = torch.linspace(-30, 25, 23, dtype=torch.float64)
    np.testing.assert_allclose(law.log_prob(x), reference.logpdf(x), rtol=1e-12)
    np.testing.assert_allclose(law.cdf(x[6:]), reference.cdf(x[6:]), rtol=1e-7)  # scipy's is right to 8 digits
    assert law.mean.item() == pytest.approx(reference.mean(), rel=1e-14)
    assert law.variance.item() == pytest.approx(reference.var(), rel=1e-14)


def test_its_limits_are_cauchys_law_and_the_normal():
    x = torch.tensor([-50.0, -3.0, -0.5, 0.7, 20.0], dtype=torch.float64)
    cauchy = NormalInverseGaussian(*double(1e-9, 0.0))
    np.testing.assert_allclose(cauchy.cdf(x), stats.cauchy.cdf(x), rtol=1e-6)
    normal = NormalInverseGaussian(*double(1e10, 0.0, 0.0, 1e5))  # variance scale^2 / a
    np.testing.assert_allclose(normal.log_cdf(x[1:4]), stats.norm.logcdf(x[1:4]), rtol=1e-7)


def test_sums_stay_in_the_family():
    """The generating function of the sum of two with one alpha and beta is the product of theirs."""
    alpha, beta = 30.0, -5.0
    one, two, both = (
        NormalInverseGaussian(*double(alpha * delta, beta * delta, mu, delta))
        for mu, delta in ((0.01, 0.02), (-0.02, 0.05), (-0.01, 0.07))
    )
    for t in (1.0, -3.0, 20.0):
        total = log_moment_generating(one, t) + log_moment_generating(two, t)
        assert log_moment_generating(both, t).item() == pytest.approx(total.item(), rel=1e-12)
    assert log_moment_generating(one, 40.0).item() == math.inf


def test_asymmetry_must_stay_below_steepness():
    with pytest.raises(ValueError, match=r"\|b\| below a; 1 of 2 are not, the first has a=1\.0, b=-1\.5"):
        NormalInverseGaussian(1.0, torch.tensor([0.5, -1.5]))


def test_bessel_functions_differentiate_twice():
    x = torch.tensor([1e-3, 0.4, 3.0, 80.0], dtype=torch.float64, requires_grad=True)
    for function in (scaled_k0, scaled_k1):
        assert torch.autograd.gradcheck(function, x, rtol=1e-5)
        assert torch.autograd.gradgradcheck(function, x[1:].detach().requires_grad_())


def test_simple_returns_have_moments_where_log_returns_have_exponential_ones():
    log_return = NormalInverseGaussian(*double(50.0, -5.0, 0.001, 1.0))
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for base in (
        log_return,
        Affine(log_return, 0.02, 0.5),
        Mixture(*double([0.7, 0.3])[:1], Normal(*double([0.0, -0.1], [0.1, 0.3]))),
    ):
        law = ExpMinusOne(base)
        draws = law.icdf(u)
        assert law.mean.item() == pytest.approx(draws.mean().item(), abs=2e-5)
        assert law.variance.item() == pytest.approx(draws.var().item(), rel=2e-3)
    assert ExpMinusOne(NormalInverseGaussian(*double(1.5, 0.0))).variance.item() == math.inf
    with pytest.raises(NotImplementedError, match="not known for StudentT"):
        _ = ExpMinusOne(StudentT(torch.tensor(5.0))).mean
