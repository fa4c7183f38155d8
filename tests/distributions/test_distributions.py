import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import Normal

from qtorch.distributions import Affine, Empirical, SkewedStudentT, tail_mean, take
from qtorch.distributions.tails import by_quadrature

CASES = [(5.0, 0.3, 2.0, 0.8), (2.5, 0.0, 1.0, 1.4), (30.0, -1.0, 0.1, 1.0)]


def skewed(df, loc, scale, skew):
    return SkewedStudentT(*(torch.tensor(v, dtype=torch.float64) for v in (df, loc, scale, skew)))


def integral(d, f, low, high):
    """Of f times the density, split at the mode."""
    loc = d.loc.item()
    density = lambda x: f(x) * d.log_prob(torch.tensor(x, dtype=torch.float64)).exp().item()  # noqa: E731
    parts = [(low, min(high, loc)), (max(low, loc), high)]
    return sum(integrate.quad(density, a, b, limit=200)[0] for a, b in parts if a < b)


@pytest.mark.parametrize("case", CASES)
def test_the_density_integrates_to_the_cdf_and_the_moments(case):
    d = skewed(*case)
    assert integral(d, lambda x: 1.0, -np.inf, np.inf) == pytest.approx(1, abs=1e-9)
    assert integral(d, lambda x: x, -np.inf, np.inf) == pytest.approx(d.mean.item(), abs=1e-8)
    for z in (-3.0, -0.5, 0.5, 3.0):
        x = case[1] + z * case[2]
        expected = integral(d, lambda x: 1.0, -np.inf, x)
        assert d.cdf(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(expected, abs=1e-9)
    if case[0] > 4:
        second = integral(d, lambda x: x * x, -np.inf, np.inf)
        assert d.variance.item() == pytest.approx(second - d.mean.item() ** 2, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("p", [1e-4, 0.01, 0.3, 0.7, 0.99])
def test_quantiles_invert_and_tail_means_integrate(case, p):
    d = skewed(*case)
    q = d.icdf(torch.tensor(p, dtype=torch.float64))
    assert d.cdf(q).item() == pytest.approx(p, rel=1e-11)
    expected = integral(d, lambda x: x, -np.inf, q.item()) / p
    assert tail_mean(d, p).item() == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert by_quadrature(d, torch.tensor(p, dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_without_skew_it_is_scipys_t():
    d = skewed(4.0, 0.1, 0.5, 1.0)
    x = torch.linspace(-5, 5, 41, dtype=torch.float64)
    np.testing.assert_allclose(d.log_prob(x), stats.t.logpdf(x, 4, 0.1, 0.5), rtol=1e-12)
    np.testing.assert_allclose(d.cdf(x), stats.t.cdf(x, 4, 0.1, 0.5), rtol=1e-10)
    assert d.variance.item() == pytest.approx(stats.t.var(4, 0.1, 0.5))


def test_gradients_reach_every_parameter():
    parameters = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([3.0, 8.0], [0.1, 0.0])]
    parameters += [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.5, 2.0], [0.8, 1.3])]
    x = torch.tensor([-1.2, 0.7], dtype=torch.float64, requires_grad=True)
    p = torch.tensor([0.02, 0.6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *a: SkewedStudentT(*a).log_prob(x), (x, *parameters))
    assert torch.autograd.gradcheck(lambda x, *a: SkewedStudentT(*a).cdf(x), (x, *parameters))
    assert torch.autograd.gradcheck(lambda p, *a: SkewedStudentT(*a).icdf(p), (p, *parameters))
    assert torch.autograd.gradcheck(lambda *a: tail_mean(SkewedStudentT(*a), 0.05), tuple(parameters))


def test_samples_follow_the_law():
    d = skewed(5.0, 0.3, 2.0, 0.8)
    x = d.sample((20_000,))
    assert stats.kstest(x.numpy(), lambda v: d.cdf(torch.from_numpy(v)).numpy()).pvalue > 0.01
    assert d.expand(torch.Size([3])).rsample((2,)).shape == (2, 3)


@pytest.mark.parametrize("bad", [{"df": 1.0}, {"scale": 0.0}, {"skew": -1.0}, {"loc": float("nan")}])
def test_parameters_outside_their_domain_are_named(bad):
    with pytest.raises(ValueError, match=f"finite {next(iter(bad))}"):
        SkewedStudentT(**({"df": 5.0} | bad))


def test_float32_keeps_its_dtype_and_the_tail():
    d = SkewedStudentT(torch.tensor(4.0), torch.tensor(0.0), torch.tensor(0.01), torch.tensor(0.9))
    exact = skewed(4.0, 0.0, 0.01, 0.9)
    q = d.icdf(torch.tensor(1e-5))
    assert q.dtype == torch.float32
    assert q.item() == pytest.approx(exact.icdf(torch.tensor(1e-5, dtype=torch.float64)).item(), rel=1e-5)


def test_affine_keeps_everything():
    base = skewed(5.0, 0.0, 1.0, 0.9)
    moved = Affine(base, 0.2, torch.tensor(3.0, dtype=torch.float64))
    same = skewed(5.0, 0.2, 3.0, 0.9)
    x = torch.linspace(-9, 9, 19, dtype=torch.float64)
    for name in ("log_prob", "cdf"):
        torch.testing.assert_close(getattr(moved, name)(x), getattr(same, name)(x))
    p = torch.tensor([0.01, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(moved.icdf(p), same.icdf(p))
    torch.testing.assert_close(tail_mean(moved, p), tail_mean(same, p))
    assert moved.mean == pytest.approx(same.mean)
    assert moved.variance == pytest.approx(same.variance)
    assert moved.df == 5.0
    with pytest.raises(AttributeError, match="rate"):
        _ = moved.rate
    with pytest.raises(ValueError, match="positive, finite scales"):
        Affine(base, 0.0, 0.0)


def test_empirical_is_the_inverse_of_the_empirical_distribution_function():
    x = torch.randn(3, 500, dtype=torch.float64)
    x[1, 100:] = torch.nan
    d = Empirical(x)
    for n, size in ((0, 500), (1, 100), (2, 500)):
        ordered = np.sort(x[n].numpy())[:size]
        for p in (0.01, 0.025, 0.05, 0.5):
            k = int(np.ceil(round(p * size, 9)))
            assert d.icdf(torch.tensor(p))[n] == ordered[k - 1]
            assert tail_mean(d, p)[n].item() == pytest.approx(ordered[:k].mean())
        assert d.mean[n].item() == pytest.approx(ordered.mean())
        assert d.variance[n].item() == pytest.approx(ordered.var())
    assert d.cdf(torch.zeros(3, dtype=torch.float64))[2].item() == pytest.approx((x[2] <= 0).double().mean().item())
    with pytest.raises(ValueError, match="at least one value"):
        Empirical(torch.full((2, 3), torch.nan))


def test_normal_tail_mean_is_closed_form_and_bad_masses_are_refused():
    expected = -stats.norm.pdf(stats.norm.ppf(0.025)) / 0.025
    assert tail_mean(Normal(0.0, 1.0), 0.025).item() == pytest.approx(expected, rel=1e-6)
    for p in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="left-tail masses"):
            tail_mean(Normal(0.0, 1.0), p)


def test_take_indexes_as_a_tensor_would():
    scale = torch.rand(4, 3) + 0.5
    d = Affine(SkewedStudentT(torch.full((4, 3), 5.0)), 0.0, scale)
    part = take(d, (slice(1, 3), 0))
    assert part.batch_shape == (2,)
    torch.testing.assert_close(part.icdf(torch.tensor(0.01)), d.icdf(torch.tensor(0.01))[1:3, 0])
    e = Empirical(torch.randn(4, 3, 10))
    assert torch.equal(take(e, 2).values, e.values[2])
