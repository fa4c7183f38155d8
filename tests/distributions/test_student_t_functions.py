import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from qtorch.distributions import student_t_functions as t

DF = torch.tensor([2.1, 2.5, 3.0, 4.5, 8.0, 20.0, 60.0, 1e3, 1e4], dtype=torch.float64)[:, None]


def mp_log_tail(x: float, nu) -> mpmath.mpf:
    nu, square = mpmath.mpf(nu), mpmath.mpf(x) ** 2
    return mpmath.log(mpmath.betainc(nu / 2, 0.5, 0, nu / (nu + square), regularized=True) / 2)


@pytest.mark.parametrize("nu", [2.05, 4.0, 30.0, 1e3, 1e4])
def test_tails_and_their_derivative_in_df_are_mpmaths(nu):
    points = [1e-6, 0.3, 1.0, 1.6, 2.4, 2.95, 3.05, 5.0, 30.0, 1e3, 1e4]
    with mpmath.workdps(50):
        expected = [mp_log_tail(x, nu) for x in points]
        step = mpmath.mpf(nu) * mpmath.mpf(10) ** -15
        slopes = [mpmath.diff(lambda n: mp_log_tail(x, n), mpmath.mpf(nu), h=step) for x in points]  # noqa: B023
    df = torch.full((len(points),), nu, dtype=torch.float64, requires_grad=True)
    got = t.t_log_cdf(-torch.tensor(points, dtype=torch.float64), df)
    (slope,) = torch.autograd.grad(got.sum(), df)
    for x, value, reference, d, reference_d in zip(points, got, expected, slope, slopes, strict=True):
        # An absolute error of the log is a relative one of the tail; where that underflows the log itself is compared.
        error = abs(value.item() - reference) / max(1, -reference / 700)
        assert error < 1e-12, (nu, x)
        assert abs(d.item() / reference_d - 1) < 1e-10, (nu, x)


def test_cdf_is_scipys():
    x = -torch.cat([torch.zeros(1, dtype=torch.float64), torch.logspace(-6, 1.7, 300, dtype=torch.float64)])
    expected = stats.t.cdf(x.numpy(), DF.numpy())
    far = expected > 1e-290
    np.testing.assert_allclose(t.t_cdf(x, DF).numpy()[far], expected[far], rtol=1e-12)
    np.testing.assert_allclose(t.t_cdf(-x, DF).numpy(), stats.t.cdf(-x.numpy(), DF.numpy()), rtol=1e-14)


def test_icdf_inverts_and_is_scipys():
    half = torch.logspace(-12, np.log10(0.4999), 300, dtype=torch.float64)
    p = torch.cat([half, 1 - half[half > 1e-6], torch.tensor([0.5], dtype=torch.float64)])
    x = t.t_icdf(p, DF)
    np.testing.assert_allclose(t.t_cdf(x, DF), p.expand(len(DF), -1), rtol=1e-12)
    np.testing.assert_allclose(x, stats.t.ppf(p.numpy(), DF.numpy()), rtol=1e-8, atol=1e-13)
    deep = torch.logspace(-300, -12, 200, dtype=torch.float64)
    np.testing.assert_allclose(t.t_log_cdf(t.t_icdf(deep, DF), DF), torch.log(deep).expand(len(DF), -1), rtol=4e-15)


def test_quantiles_at_the_edges():
    p = torch.tensor([0.0, 1.0, -0.1, 1.1, 0.5, 0.5 - 1e-12], dtype=torch.float64)
    x = t.t_icdf(p, torch.tensor(5.0))
    assert x[:2].tolist() == [-np.inf, np.inf]
    assert x[2:4].isnan().all()
    assert x[4] == 0
    assert x[5].item() == pytest.approx((p[5].item() - 0.5) / stats.t.pdf(0, 5), rel=1e-9)


def test_log_density_is_scipys_also_at_large_df_in_float32():
    x = torch.linspace(-8, 8, 33)
    got = t.t_log_prob(x, DF.float())
    expected = stats.t.logpdf(x.numpy().astype(float), DF.numpy())
    np.testing.assert_allclose(got.numpy(), expected, rtol=2e-5, atol=2e-5)


def test_partial_mean_and_mean_abs_are_integrals():
    for nu in (2.3, 6.0):
        law = stats.t(nu)
        x = law.ppf(0.025)
        mean = law.expect(lambda v: v, lb=-np.inf, ub=x)
        nu_tensor = torch.tensor(nu, dtype=torch.float64)
        assert t.t_partial_mean(torch.tensor(x, dtype=torch.float64), nu_tensor).item() == pytest.approx(mean, rel=1e-6)
        assert t.t_mean_abs(nu_tensor).item() == pytest.approx(law.expect(abs), rel=1e-6)


@pytest.mark.parametrize("function", [t.t_cdf, t.t_log_cdf, t.t_partial_mean, t.t_log_prob])
def test_gradients_in_value_and_df(function):
    x = torch.tensor([-5.0, -0.3, 1.2, 7.0], dtype=torch.float64, requires_grad=True)
    nu = torch.tensor([2.3, 5.0, 40.0, 9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x, nu))
    assert torch.autograd.gradgradcheck(function, (x, nu))


def test_gradients_of_the_quantile():
    p = torch.tensor([1e-4, 0.3, 0.5, 0.97], dtype=torch.float64, requires_grad=True)
    nu = torch.tensor([2.3, 5.0, 40.0, 9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(t.t_icdf, (p, nu))
    assert torch.autograd.gradgradcheck(t.t_icdf, (p.detach().clamp(min=0.02).requires_grad_(), nu))


def test_an_element_does_not_depend_on_its_neighbours():
    p = torch.rand(200_000, dtype=torch.float64)
    nu = 2.1 + 50 * torch.rand(200_000, dtype=torch.float64)
    whole = t.t_icdf(p, nu)
    for i in (0, 77_777, 199_999):
        assert t.t_icdf(p[i], nu[i]) == whole[i]


@pytest.mark.parametrize("function", [t.t_cdf, t.t_icdf])
def test_torch_func_maps_over_value_and_df(function):
    x, nu = torch.rand(5, 3, dtype=torch.float64), 2 + 9 * torch.rand(5, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.vmap(function)(x, nu), function(x, nu), rtol=1e-15, atol=0)
    torch.testing.assert_close(torch.vmap(lambda v: function(v, nu[0]))(x), function(x, nu[0]), rtol=1e-15, atol=0)
    nu.requires_grad_()
    (expected,) = torch.autograd.grad(function(x, nu).sum(), nu)
    each = torch.vmap(torch.func.grad(lambda n, v: function(v, n).sum()))(nu.detach(), x)
    torch.testing.assert_close(each, expected, rtol=1e-12, atol=0)
