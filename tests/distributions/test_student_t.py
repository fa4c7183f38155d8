import numpy as np
import pytest
import torch
from scipy import stats

from qtorch.distributions import student_t as t

DF = torch.tensor([2.1, 2.5, 3.0, 4.5, 8.0, 20.0, 60.0, 1e3, 1e4], dtype=torch.float64)[:, None]


def test_cdf_is_scipys():
    x = -torch.cat([torch.zeros(1, dtype=torch.float64), torch.logspace(-6, 1.7, 300, dtype=torch.float64)])
    expected = stats.t.cdf(x.numpy(), DF.numpy())
    far = expected > 1e-290
    np.testing.assert_allclose(t.t_cdf(x, DF).numpy()[far], expected[far], rtol=2e-10)
    np.testing.assert_allclose(t.t_cdf(-x, DF).numpy(), stats.t.cdf(-x.numpy(), DF.numpy()), rtol=1e-11)


def test_icdf_inverts_and_is_scipys():
    half = torch.logspace(-12, np.log10(0.4999), 300, dtype=torch.float64)
    p = torch.cat([half, 1 - half[half > 1e-6], torch.tensor([0.5], dtype=torch.float64)])
    x = t.t_icdf(p, DF)
    np.testing.assert_allclose(t.t_cdf(x, DF), p.expand(len(DF), -1), rtol=1e-11)
    np.testing.assert_allclose(x, stats.t.ppf(p.numpy(), DF.numpy()), rtol=1e-8, atol=1e-13)


def test_log_density_is_scipys_also_at_large_df_in_float32():
    x = torch.linspace(-8, 8, 33)
    got = t.t_log_prob(x, DF.float())
    expected = stats.t.logpdf(x.numpy().astype(float), DF.numpy())
    np.testing.assert_allclose(got.numpy(), expected, rtol=2e-5, atol=2e-5)


def test_tail_mean_and_mean_abs_are_integrals():
    for nu in (2.3, 6.0):
        law = stats.t(nu)
        x = law.ppf(0.025)
        mean = law.expect(lambda v: v, lb=-np.inf, ub=x) / 0.025
        nu_tensor = torch.tensor(nu, dtype=torch.float64)
        assert t.t_tail_mean(torch.tensor(x, dtype=torch.float64), nu_tensor).item() == pytest.approx(mean, rel=1e-6)
        assert t.t_mean_abs(nu_tensor).item() == pytest.approx(law.expect(abs), rel=1e-6)


@pytest.mark.parametrize("function", [t.t_cdf, t.t_tail_mean, t.t_log_prob])
def test_gradients_in_value_and_df(function):
    x = torch.tensor([-5.0, -0.3, 1.2, 7.0], dtype=torch.float64, requires_grad=True)
    nu = torch.tensor([2.3, 5.0, 40.0, 9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x, nu))


def test_gradients_of_the_quantile():
    p = torch.tensor([1e-4, 0.3, 0.5, 0.97], dtype=torch.float64, requires_grad=True)
    nu = torch.tensor([2.3, 5.0, 40.0, 9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(t.t_icdf, (p, nu))


def test_an_element_does_not_depend_on_its_neighbours():
    p = torch.rand(200_000, dtype=torch.float64)
    nu = 2.1 + 50 * torch.rand(200_000, dtype=torch.float64)
    whole = t.t_icdf(p, nu)
    for i in (0, 77_777, 199_999):
        assert t.t_icdf(p[i], nu[i]) == whole[i]
