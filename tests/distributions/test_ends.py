"""Laws at the ends of the line, beyond [0, 1], at missing values, and on another device than what they are asked."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch._subclasses import FakeTensorMode
from torch.distributions import Laplace, Normal

from qtorch.distributions import (
    Affine,
    Empirical,
    ExpMinusOne,
    GeneralizedPareto,
    HansenSkewedT,
    JohnsonSU,
    Mixture,
    NormalInverseGaussian,
    StudentT,
    log_cdf,
    log_sf,
    partial_mean,
    tail_mean,
)
from qtorch.risk import expected_shortfall, value_at_risk
from tests.distributions.test_families import LAWS, double, law_of


@pytest.mark.parametrize("name", LAWS)
def test_at_infinity_all_is_told_and_missing_values_stay_missing(name):
    law = law_of(name)
    ends = torch.tensor([-math.inf, math.inf], dtype=torch.float64)
    torch.testing.assert_close(law.cdf(ends), torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(log_cdf(law, ends)[1].exp().item(), 1.0)
    torch.testing.assert_close(log_sf(law, ends)[0].exp().item(), 1.0)
    assert log_cdf(law, ends)[0] < -700
    assert log_sf(law, ends)[1] < -700
    if name != "exp_minus_one":
        torch.testing.assert_close(partial_mean(law, ends), torch.stack((0 * law.mean, law.mean)), rtol=1e-7, atol=1e-9)
    nan = ends[:1] * torch.nan
    assert law.cdf(nan).isnan()
    assert log_cdf(law, nan).isnan()
    assert log_sf(law, nan).isnan()
    assert law.icdf(torch.tensor([-0.1, 1.1, torch.nan], dtype=torch.float64)).isnan().all()


def test_far_tails_of_the_normal_inverse_gaussian_meet_their_asymptote():
    law = NormalInverseGaussian(*double(1.5, -0.3, 0.0, 1.0))
    border = -1e10 / 1.2  # where the energy is 1e10
    near, far = law.log_cdf(torch.tensor([border * (1 - 1e-6), border * (1 + 1e-6)], dtype=torch.float64))
    assert (far / near).item() == pytest.approx(1 + 2e-6, rel=1e-8)
    x = torch.tensor([-1e200, -1e12, 1e12, 1e200], dtype=torch.float64)
    torch.testing.assert_close(law.log_prob(x), x.abs() * torch.tensor([-1.2, -1.2, -1.8, -1.8], dtype=torch.float64))


def test_without_a_mean_the_tail_mean_is_infinite():
    for df in (0.8, 1.0):
        law = StudentT(torch.tensor(df, dtype=torch.float64))
        assert tail_mean(law, 0.05) == -torch.inf
        assert tail_mean(law, 0.95) == -torch.inf


def test_below_the_lower_end_log_cdf_has_gradients_of_zero():
    parameters = [value.requires_grad_() for value in double(0.5, 1.0, 0.25)]
    total = GeneralizedPareto(*parameters).log_cdf(torch.tensor([0.3, 2.0], dtype=torch.float64))
    for gradient in torch.autograd.grad(total[1:].sum() + torch.where(total.isinf(), 0.0, total).sum(), parameters):
        assert gradient.isfinite()


def test_numbers_of_an_affine_map_take_the_bases_precision():
    law = Affine(StudentT(*double(3.0)), 0.1, 0.2)
    assert law.mean.item() == 0.1
    assert law.variance.item() == pytest.approx(0.12, rel=1e-15)
    assert Affine(law, 0.0, -1.0, validate_args=False).scale == -1.0


def test_simple_returns_have_the_entropy_of_a_lognormal():
    law = ExpMinusOne(Normal(*double(0.05, 0.3)))
    assert law.entropy().item() == pytest.approx(0.05 + 0.5 * math.log(2 * math.pi * math.e * 0.09), rel=1e-14)
    assert law.log_prob(torch.tensor(torch.nan)).isnan()


def test_empirical_laws_at_their_ends():
    law = Empirical(torch.tensor([1.0, 2.0, 4.0]))
    assert law.mean.item() == pytest.approx(7 / 3)
    assert law.icdf(torch.tensor([0.0, 1.0])).tolist() == [1, 4]
    assert law.icdf(torch.tensor([-0.1, 1.1, torch.nan])).isnan().all()
    assert law.cdf(torch.tensor([torch.nan])).isnan()
    exact = Empirical(torch.arange(3, dtype=torch.float64)).cdf(torch.zeros(1, dtype=torch.float64))
    assert exact.item() == 1 / 3
    assert Empirical(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])).icdf(torch.tensor(0.0)) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda x: StudentT(x, validate_args=False),
        lambda x: HansenSkewedT(x, validate_args=False),
        lambda x: JohnsonSU(x, 1.0, validate_args=False),
        lambda x: GeneralizedPareto(0.0, x, 0.2, validate_args=False),
        lambda x: ExpMinusOne(StudentT(x, validate_args=False)),
        lambda x: Affine(StudentT(x, validate_args=False), 0.0, 2.0, validate_args=False),
        lambda x: Laplace(x, x, validate_args=False),
    ],
)
def test_risk_lies_on_the_laws_device(make):
    with FakeTensorMode(allow_non_fake_inputs=True):
        law = make(torch.empty(3, device="cuda"))
        assert value_at_risk(law, 0.99).device.type == "cuda"
        if not isinstance(law, Laplace | ExpMinusOne):  # quadrature reads nodes that were made outside
            assert expected_shortfall(law, 0.975).device.type == "cuda"


def test_normal_scores_keep_their_digits_in_the_far_left_tail():
    masses = torch.tensor([1e-300, 1e-20, 1e-10, 0.3], dtype=torch.float64)
    law = JohnsonSU(*double(0.2, 1.5, 0.0, 1.0))
    torch.testing.assert_close(law.cdf(law.icdf(masses)), masses, rtol=1e-12, atol=0)
    # Far out the mean beyond a quantile is little more than the quantile itself.
    ratio = (tail_mean(law, masses) / law.icdf(masses))[:3]
    assert ((ratio > 1) & (ratio < 1.2)).all()


@pytest.mark.parametrize("df", [1e6, 1e10, 1e15])
def test_students_entropy_tends_to_the_normals(df):
    # The next term of the expansion in 1 / df is below 1e-12.
    entropy = StudentT(torch.tensor(df, dtype=torch.float64)).entropy().item()
    assert entropy == pytest.approx(0.5 * math.log(2 * math.pi * math.e) + 1 / df, abs=1e-12)


def test_where_no_part_of_a_mixture_has_mass_gradients_are_zero():
    weights, xi = (value.requires_grad_() for value in double([0.5, 0.5], [-0.5, -0.5]))
    law = Mixture(weights, GeneralizedPareto(double([0.0, 10.0])[0], 1.0, xi))
    log_density = law.log_prob(torch.tensor([-1.0, 1.0], dtype=torch.float64))
    assert log_density[0] == -torch.inf
    gradients = torch.autograd.grad(torch.where(log_density.isinf(), 0.0, log_density).sum(), (weights, xi))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_laws_of_normals_have_quantiles_in_the_far_left_tail():
    normals = Normal(*double([0.0, 0.0], [1.0, 2.0]))
    mass = torch.tensor(1e-20, dtype=torch.float64)
    for law in (
        Mixture(double([0.5, 0.5])[0], normals),
        Affine(normals, 0.0, 2.0),
        ExpMinusOne(Affine(normals, 0.0, 0.1)),
    ):
        torch.testing.assert_close(law.cdf(law.icdf(mass)), mass.expand(law.batch_shape), rtol=1e-10, atol=0)


def test_the_partial_mean_of_a_missing_value_is_missing():
    law = ExpMinusOne(StudentT(*double(4.0, 0.0, 0.01)))
    assert partial_mean(law, torch.tensor([torch.nan, 0.0], dtype=torch.float64)).isnan().tolist() == [True, False]


def test_logs_of_normal_distribution_functions_keep_the_digits_of_either_tail():
    x = torch.tensor([-30.0, -9.0, -1.0, 0.5, 1.0, 1.5, 6.0, 8.0, 12.0], dtype=torch.float64, requires_grad=True)
    normal = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    log_mass = log_cdf(normal, x)
    np.testing.assert_allclose(log_mass.detach(), stats.norm.logcdf(x.detach()), rtol=1e-13)
    np.testing.assert_allclose(log_sf(normal, x).detach(), stats.norm.logsf(x.detach()), rtol=1e-13)
    (slope,) = torch.autograd.grad(log_mass.sum(), x)
    expected = stats.norm.pdf(x.detach()) / stats.norm.cdf(x.detach())
    np.testing.assert_allclose(slope[1:], expected[1:], rtol=1e-12)
