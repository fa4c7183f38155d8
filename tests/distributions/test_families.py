"""What every univariate law must do, against scipy and numerical integration."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from qtorch.distributions import (
    Affine,
    Empirical,
    ExpMinusOne,
    GeneralizedPareto,
    HansenSkewedT,
    JohnsonSU,
    Mixture,
    NormalInverseGaussian,
    QuantileSpline,
    SkewedStudentT,
    SplicedTails,
    StudentT,
    log_cdf,
    partial_mean,
    tail_mean,
    take,
)


def double(*values):
    return [torch.tensor(value, dtype=torch.float64) for value in values]


def mixture(w, df, loc, scale):
    return Mixture(w, StudentT(df, loc, scale))


# Constructor, parameters of one element, and scipy's law where it has one.
LAWS = {
    "student": (StudentT, double(3.0, 0.1, 2.0), stats.t(3, 0.1, 2)),
    "student_light": (StudentT, double(80.0, -1.0, 0.5), stats.t(80, -1, 0.5)),
    "skewed": (SkewedStudentT, double(4.0, 0.1, 2.0, 0.8), None),
    "hansen": (HansenSkewedT, double(5.0, -0.2, 0.3, 2.0), None),
    "johnson": (JohnsonSU, double(0.4, 1.5, 0.2, 1.3), stats.johnsonsu(0.4, 1.5, 0.2, 1.3)),
    "nig": (NormalInverseGaussian, double(1.3, -0.3, 0.1, 2.0), None),
    "pareto": (GeneralizedPareto, double(0.2, 1.5, 0.3), stats.genpareto(0.3, 0.2, 1.5)),
    "pareto_exponential": (GeneralizedPareto, double(0.0, 1.5, 0.0), stats.expon(0, 1.5)),
    "pareto_ends": (GeneralizedPareto, double(0.2, 1.5, -0.4), stats.genpareto(-0.4, 0.2, 1.5)),
    "mixture": (mixture, double([0.8, 0.2], [4.0, 3.0], [0.1, -1.0], [1.0, 3.0]), None),
    "affine": (lambda df, loc, scale: Affine(StudentT(df), loc, scale), double(3.0, 0.1, 2.0), stats.t(3, 0.1, 2)),
    "exp_minus_one": (
        lambda loc, scale: ExpMinusOne(Normal(loc, scale)),
        double(0.05, 0.3),
        stats.lognorm(0.3, -1, math.exp(0.05)),
    ),
}
LAWS |= {
    "spliced": (
        lambda df, loc, scale, skew, *tails: SplicedTails(SkewedStudentT(df, loc, scale, skew), *tails),
        double(5.0, 0.1, 2.0, 0.8, 0.05, 0.2, 0.08, -0.3),
        None,
    ),
    "spliced_below": (
        lambda loc, scale, mass, xi, s: SplicedTails(Normal(loc, scale), mass, xi, lower_scale=s),
        double(0.1, 1.2, 0.025, 0.1, 0.7),
        None,
    ),
    "spline": (QuantileSpline, double([-1.5, -0.5, 0.4, 2.0], [-3.0, -0.4, 0.2, 2.5], [2.0, 0.8, 1.3, 1.1]), None),
    "spline_student": (
        lambda quantiles, df: QuantileSpline.from_quantiles([0.02, 0.3, 0.6, 0.95], quantiles, StudentT(df)),
        double([-3.0, -0.4, 0.2, 2.5], 5.0),
        None,
    ),
}
MASSES = torch.tensor([1e-4, 0.01, 0.025, 0.3, 0.5, 0.77, 0.99, 0.9999], dtype=torch.float64)
LEGENDRE = np.polynomial.legendre.leggauss(400)
cases = pytest.mark.parametrize("name", LAWS)
DEAR = ("spliced", "mixture", "spline_student")  # to differentiate element by element


def law_of(name):
    make, parameters, _ = LAWS[name]
    return make(*parameters)


@cases
def test_quantiles_invert_and_tails_add_up(name):
    law = law_of(name)
    x = law.icdf(MASSES)
    torch.testing.assert_close(law.cdf(x), MASSES, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(log_cdf(law, x), torch.log(MASSES), rtol=1e-11, atol=1e-13)
    if hasattr(law, "log_sf"):
        torch.testing.assert_close(law.log_sf(x), torch.log1p(-MASSES), rtol=1e-11, atol=1e-12)


def integral(law, function, low, high):
    """Of a function times the density, by Gauss-Legendre in asinh x, where tails are smooth."""
    nodes, weights = LEGENDRE
    a, b = np.arcsinh(np.clip([low, high], -1e16, 1e16))
    t = torch.from_numpy(a + (b - a) * (nodes + 1) / 2)
    x = torch.sinh(t)
    values = function(x) * torch.exp(law.log_prob(x)) * torch.cosh(t)
    return ((b - a) / 2 * torch.from_numpy(weights) * values).sum().item()


def kinks(law):
    """Where the density is not smooth."""
    if isinstance(law, SplicedTails):
        return [tail.threshold.item() for tail in law._tails() if tail.there] + kinks(law.body)
    if isinstance(law, QuantileSpline):
        return law.values.tolist()
    return [law._pieces()[1].item()] if hasattr(law, "_pieces") else []


@cases
def test_the_density_integrates_to_the_cdf_the_moments_and_the_tail_means(name):
    law = law_of(name)
    masses = torch.tensor([0, 1e-6, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1 - 1e-6, 1], dtype=torch.float64)
    edges = law.icdf(masses).tolist()

    def moment(power, stop):
        cuts = sorted({*edges[: stop + 1], *(kink for kink in kinks(law) if kink < edges[stop])})
        return sum(integral(law, lambda x: x**power, a, b) for a, b in zip(cuts[:-1], cuts[1:], strict=True))

    whole = len(edges) - 1
    assert moment(0, whole) == pytest.approx(1, abs=1e-10)
    assert moment(1, whole) == pytest.approx(law.mean.item(), abs=1e-9)
    if law.variance.isfinite():
        tolerance = 1e-4 if name in ("student", "affine", "mixture") else 1e-9  # x^2 f of df = 3 falls as 1 / x^2
        assert moment(2, whole) - law.mean.item() ** 2 == pytest.approx(law.variance.item(), rel=tolerance)
    for stop, p in ((2, 0.01), (3, 0.1), (6, 0.7), (8, 0.99)):
        below = moment(1, stop)
        assert tail_mean(law, p).item() == pytest.approx(below / p, rel=1e-8, abs=1e-9)
        assert partial_mean(law, torch.tensor(edges[stop], dtype=torch.float64)).item() == pytest.approx(
            below, rel=1e-8, abs=1e-9
        )


@pytest.mark.parametrize("name", [name for name, (_, _, reference) in LAWS.items() if reference is not None])
def test_it_is_scipys(name):
    law, reference = law_of(name), LAWS[name][2]
    x = torch.linspace(-7.77, 9.13, 57, dtype=torch.float64)
    np.testing.assert_allclose(law.log_prob(x), reference.logpdf(x), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(law.cdf(x), reference.cdf(x), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(law.icdf(MASSES), reference.ppf(MASSES), rtol=1e-9)
    assert law.mean.item() == pytest.approx(reference.mean(), rel=1e-9)
    assert law.variance.item() == pytest.approx(reference.var(), rel=1e-9)
    if hasattr(law, "_icdf"):
        assert law.entropy().item() == pytest.approx(reference.entropy(), rel=1e-8)


@pytest.mark.parametrize(
    "name", ["skewed", "hansen", "johnson", "mixture", "nig", "spliced", "spliced_below", "spline"]
)
def test_entropy_is_the_mean_of_minus_the_log_density(name):
    law = law_of(name)
    u = (torch.arange(50_000, dtype=torch.float64) + 0.5) / 50_000
    assert law.entropy().item() == pytest.approx(-law.log_prob(law.icdf(u)).mean().item(), abs=2e-3)


@pytest.mark.parametrize(
    ("name", "along"),
    [
        *((name, name in DEAR) for name in LAWS),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in DEAR),
    ],
)
def test_gradients_reach_value_and_parameters(name, along):
    """Along random directions, or element by element."""
    gradcheck = partial(torch.autograd.gradcheck, fast_mode=along)
    make, parameters, _ = LAWS[name]
    parameters = [value.clone().requires_grad_() for value in parameters]
    law = make(*parameters)
    x = law.icdf(torch.tensor([0.013, 0.4, 0.93], dtype=torch.float64)).detach().requires_grad_()
    p = torch.tensor([0.013, 0.4, 0.93], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, *a: make(*a).log_prob(x), (x, *parameters))
    assert gradcheck(lambda x, *a: make(*a).cdf(x), (x, *parameters))
    assert gradcheck(lambda x, *a: log_cdf(make(*a), x), (x, *parameters))
    assert gradcheck(lambda p, *a: make(*a).icdf(p), (p, *parameters))
    assert gradcheck(lambda *a: tail_mean(make(*a), 0.05), tuple(parameters))
    assert gradcheck(lambda *a: make(*a).mean, tuple(parameters))


@cases
def test_batches_expand_index_and_draw(name):
    law = law_of(name).expand(torch.Size([4, 3]))
    assert law.batch_shape == (4, 3)
    part = take(law, (slice(1, 3), 0))
    assert part.batch_shape == (2,)
    torch.testing.assert_close(part.icdf(MASSES[2]), law.icdf(MASSES[2])[1:3, 0])
    draws = law.sample((3_000,))
    assert draws.shape == (3_000, 4, 3)
    assert stats.kstest(law.cdf(draws.double()).flatten().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("name", ["student", "skewed", "hansen", "johnson", "nig", "pareto", "spliced", "spline"])
def test_float32_in_float32_out_at_float64s_accuracy(name):
    make, parameters, _ = LAWS[name]
    small = make(*(value.float() for value in parameters))
    exact = make(*(value.float().double() for value in parameters))
    p = torch.tensor([1e-6, 0.01, 0.6, 0.999])
    x = small.icdf(p)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), exact.icdf(p.double()), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(small.log_prob(x).double(), exact.log_prob(x.double()), rtol=2e-6, atol=2e-6)
    assert small.mean.dtype == small.rsample((2,)).dtype == tail_mean(small, 0.01).dtype == torch.float32


@pytest.mark.parametrize("name", ["student", "mixture", "nig", "pareto", "spliced", "spline", "affine"])
def test_gradients_of_draws_are_those_of_quantiles(name):
    make, parameters, _ = LAWS[name]
    parameters = [value.clone().requires_grad_() for value in parameters]
    law = make(*parameters)
    x = law.rsample((20,))
    u = law.cdf(x.detach()).detach()
    weight = torch.linspace(1, 2, 20, dtype=torch.float64)
    got = torch.autograd.grad((weight * x).sum(), parameters)
    expected = torch.autograd.grad((weight * make(*parameters).icdf(u)).sum(), parameters)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


def test_far_tails_are_numbers():
    x = torch.tensor([-12.0, -25.0], dtype=torch.float64)
    np.testing.assert_allclose(StudentT(torch.tensor(200.0).double()).log_cdf(x), stats.t.logcdf(x, 200), rtol=1e-10)
    affine = Affine(StudentT(torch.tensor(200.0).double()), 0.0, 1.0)
    assert affine.log_cdf(x).tolist() == affine.log_sf(-x).tolist() == affine.base.log_cdf(x).tolist()
    assert NormalInverseGaussian(*double(1.5, 0.3)).log_cdf(x[1] * 1e5).isfinite()
    assert JohnsonSU(*double(0.0, 5.0)).log_cdf(x[1] * 1e5).isfinite()
    assert mixture(*LAWS["mixture"][1]).log_cdf(x[1]).isfinite()


def test_generalized_pareto_beyond_its_ends_and_through_zero():
    law = GeneralizedPareto(*double(0.2, 1.5, -0.4))
    x = torch.tensor([-1.0, 0.1, 4.0, 9.0], dtype=torch.float64, requires_grad=True)
    assert law.log_prob(x).tolist()[:2] == [-math.inf] * 2
    assert law.log_prob(x)[2:].tolist() == [-math.inf] * 2
    assert law.cdf(x).tolist() == [0, 0, 1, 1]
    law.cdf(x).sum().backward()
    assert x.grad.isfinite().all()
    assert law.icdf(torch.tensor([0.0, 1.0]).double()).tolist() == pytest.approx([0.2, 0.2 + 1.5 / 0.4])
    assert GeneralizedPareto(*double(0.2, 1.5, 0.4)).cdf(torch.tensor(math.inf)) == 1
    xi = torch.tensor(-0.4, dtype=torch.float64, requires_grad=True)
    GeneralizedPareto(*double(0.2, 1.5), xi).log_prob(x.detach()).sum().backward()
    assert xi.grad.isfinite()
    xi = torch.zeros((), dtype=torch.float64, requires_grad=True)
    GeneralizedPareto(*double(0.0, 1.0), xi).log_prob(torch.tensor(1.0, dtype=torch.float64)).backward()
    assert xi.grad.item() == pytest.approx(-0.5)  # d/dxi at 0 is z^2/2 - z


def test_a_component_without_weight_changes_nothing():
    plain = mixture(*double([0.6, 0.4], [4.0, 9.0], [0.0, 1.0], [1.0, 2.0]))
    more = mixture(*double([0.6, 0.4, 0.0], [4.0, 9.0, 3.0], [0.0, 1.0, -50.0], [1.0, 2.0, 9.0]))
    torch.testing.assert_close(plain.icdf(MASSES), more.icdf(MASSES), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(tail_mean(plain, 0.01), tail_mean(more, 0.01))
    for bad in ([0.5, -0.5], [0.0, 0.0], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="finite weights of 0 or more"):
            mixture(*double(bad, [4.0, 9.0], [0.0, 1.0], [1.0, 2.0]))
    with pytest.raises(ValueError, match="batch shape"):
        Mixture(torch.ones(2), StudentT(torch.tensor(5.0)))


def test_quantiles_of_far_apart_components_and_at_the_ends():
    law = mixture(*double([0.5, 0.5], [30.0, 30.0], [-1e3, 1e3], [1.0, 1e-3]))
    p = torch.tensor([1e-9, 0.25, 0.4999, 0.5001, 0.75, 1 - 1e-9], dtype=torch.float64)
    torch.testing.assert_close(law.cdf(law.icdf(p)), p, rtol=1e-12, atol=0)
    assert law.icdf(torch.tensor([0.0, 1.0]).double()).tolist() == [-math.inf, math.inf]
    assert law.icdf(torch.tensor(1.5).double()).isnan()
    bounded = Mixture(*double([0.5, 0.5]), GeneralizedPareto(*double([-1.0, 2.0], [1.0, 1.0], [0.1, -0.5])))
    assert bounded.icdf(torch.tensor([0.0, 1.0]).double()).tolist() == [-1, math.inf]


def test_weights_of_an_empirical_law_count_as_repetitions():
    x = torch.randn(2, 40, dtype=torch.float64)
    times = torch.randint(0, 4, (40,))
    x[0, :5] = torch.nan
    weighted = Empirical(x, times.double().expand(2, 40))
    for n in range(2):
        there = ~x[n].isnan()
        repeated = Empirical(x[n][there].repeat_interleave(times[there]))
        for p in torch.tensor([0.01, 0.1, 0.37, 0.5, 0.99], dtype=torch.float64):
            assert weighted.icdf(p)[n] == repeated.icdf(p)
            below = repeated.values[repeated.values <= repeated.icdf(p)].mean()
            assert tail_mean(weighted, p)[n].item() == pytest.approx(below.item(), abs=1e-12)
        assert weighted.mean[n].item() == pytest.approx(repeated.mean.item())
        assert weighted.variance[n].item() == pytest.approx(repeated.variance.item())
        assert weighted.cdf(x[n, 7])[n].item() == pytest.approx(repeated.cdf(x[n, 7]).item())
    assert take(weighted, 1).icdf(torch.tensor(0.3)) == weighted.icdf(torch.tensor(0.3))[1]
    with pytest.raises(ValueError, match="finite weights of 0 or more"):
        Empirical(x[1], -torch.ones(40).double())


@pytest.mark.parametrize("name", ["student", "skewed", "hansen", "johnson", "nig", "pareto"])
def test_parameters_outside_their_domain_are_named(name):
    make, parameters, _ = LAWS[name]
    parameters = list(parameters)
    scale = list(make.arg_constraints).index("scale")
    parameters[scale] = torch.tensor([1.0, -2.0, 1.0]).double()
    with pytest.raises(ValueError, match=r"finite scale above 0\.0; 1 of 3 are not, the first is -2\.0"):
        make(*parameters)
    make(*parameters, validate_args=False)


@pytest.mark.parametrize("d", [3.0, 38.0, 100.0])
def test_a_mixture_has_quantiles_in_a_gap_between_its_components(d):
    law = Mixture(torch.full((2,), 0.5, dtype=torch.float64), Normal(torch.tensor([-d, d], dtype=torch.float64), 1.0))
    p = torch.tensor([0.5 - 1e-12, 0.5, 0.5 + 1e-12, 0.25, 0.75], dtype=torch.float64)
    x = law.icdf(p)
    assert x.isfinite().all()
    assert (x[:3].abs() < d).all()
    torch.testing.assert_close(law.cdf(x), p, rtol=1e-11, atol=0)
