"""What every joint law promises: exact marginals under masks, conditionals, permutation, gradients."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from qtorch.distributions import (
    GaussianCopula,
    JointDistribution,
    MultivariateStudentT,
    QuantileSpline,
    SkewedStudentT,
    StudentT,
    StudentTCopula,
    concatenate,
    tail_mean,
    take,
)
from qtorch.distributions.copulas import normal_scores
from qtorch.distributions.cumulative import cdf, icdf, ndtr
from qtorch.distributions.student_t_functions import t_icdf
from qtorch.distributions.student_t_scores import to_normal, to_student_t

LOADINGS = torch.tensor([[0.8, 0.1], [0.5, -0.6], [0.3, 0.7], [-0.4, 0.2]], dtype=torch.float64)
DF = torch.tensor(3.5, dtype=torch.float64)
SCALE = torch.tensor([1.0, 0.5, 2.0, 1.5, 1.0], dtype=torch.float64)


def skewed(N):
    return SkewedStudentT(4.0, 0.1 * torch.arange(N).double(), SCALE[:N], 1.2)


def splined(N):
    knots = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64)
    return QuantileSpline(
        knots, knots * SCALE[:N, None] - 0.1, torch.tensor([1.2, 0.8, 1.0]).double(), StudentT(5.0 + SCALE[:N])
    )


# Each from loadings and df, whatever of them it has.
MODELS = {
    "multivariate_t": lambda L, df: MultivariateStudentT(df, 0 * L[..., 0], L, 1 - (L * L).sum(-1)),
    "normal": lambda L, df: JointDistribution(Normal(0.3 * SCALE[: len(L)], SCALE[: len(L)]), GaussianCopula(L)),
    "gaussian_copula": lambda L, df: JointDistribution(skewed(len(L)), GaussianCopula(L)),
    "t_copula": lambda L, df: JointDistribution(skewed(len(L)), StudentTCopula(df, L)),
    "spline_t_copula": lambda L, df: JointDistribution(splined(len(L)), StudentTCopula(df, L)),
    "independent": lambda L, df: JointDistribution(skewed(len(L)), GaussianCopula(L[..., :0])),
    "given_one_more": lambda L, df: JointDistribution(
        skewed(len(L) + 1), StudentTCopula(df, torch.cat((torch.full_like(L[:1], 0.5), L)))
    ).condition(torch.tensor([-2.0]).double().expand(len(L) + 1), [0]),
}
every_model = pytest.mark.parametrize("name", MODELS)


def make(name, N=4):
    return MODELS[name](LOADINGS[:N], DF)


def marginals(law):
    return law.marginals() if callable(law.marginals) else law.marginals


@every_model
@pytest.mark.parametrize("N", [2, 3])
def test_marginals_under_masks_are_integrals_of_the_joint_density(name, N):
    """The last coordinate is integrated out along its own quantiles, against the mask that leaves it out."""
    law = make(name, N)
    torch.manual_seed(0)
    x = law.sample((6,)).double()
    # Nodes of the tangent in the logit of mass, crowded at both ends, where heavy tails are.
    t = torch.linspace(-36, 36, 6_001, dtype=torch.float64)
    u, jacobian = torch.sigmoid(t), torch.sigmoid(t) * torch.sigmoid(-t)
    last = icdf(take(marginals(law), (..., N - 1)), u.clamp(1e-15, 1 - 1e-15))
    whole = torch.cat((x[:, None, :-1].expand(6, len(t), N - 1), last[None, :, None].expand(6, len(t), 1)), dim=-1)
    log_own = take(marginals(law), (..., N - 1)).log_prob(last)
    area = torch.trapezoid(torch.exp(law.log_prob(whole) - log_own) * jacobian, t, dim=-1)
    mask = torch.arange(N) < N - 1
    hidden = torch.where(mask, x, torch.nan)
    torch.testing.assert_close(torch.exp(law.log_prob(hidden, mask)), area, rtol=1e-5, atol=1e-9)


@every_model
def test_a_mask_is_the_marginal_law_and_one_left_is_its_own(name):
    law = make(name)
    x = law.sample((20,)).double()
    masks = torch.rand(20, 4) > 0.4
    masks[0], masks[1] = False, True
    got = law.log_prob(torch.where(masks, x, torch.nan), masks)
    assert got[0] == 0
    for row in range(1, 20):
        if masks[row].any():
            part = law.marginal(masks[row]).log_prob(x[row, masks[row]])
            torch.testing.assert_close(got[row], part, rtol=1e-10, atol=1e-10)
    for n in range(4):
        one = law.log_prob(x, torch.arange(4) == n)
        torch.testing.assert_close(one, take(marginals(law), (..., n)).log_prob(x[:, n]), rtol=1e-10, atol=1e-10)


@every_model
def test_coordinates_may_be_permuted(name):
    law, order = make(name), torch.tensor([2, 0, 3, 1])
    x, mask = law.sample((5,)), torch.rand(5, 4) > 0.3
    turned = law.marginal(order)
    torch.testing.assert_close(turned.log_prob(x[:, order], mask[:, order]), law.log_prob(x, mask), rtol=1e-10, atol=0)
    torch.testing.assert_close(turned.mean, law.mean[..., order])
    value = torch.where(torch.arange(4) == 2, x[0], torch.nan)
    one, other = turned.condition(value[order], [0]), law.condition(value, [2])
    torch.testing.assert_close(one.mean, other.mean[[0, 2, 1]], rtol=1e-8, atol=1e-8)


@every_model
@pytest.mark.parametrize("known", [[1], [2, 0], slice(0, 3), [], torch.tensor([True, False, True, False])])
def test_a_joint_density_is_the_known_times_the_conditional(name, known):
    law = make(name)
    x = law.sample((5,)).double()
    places = torch.arange(4)[known]
    there = torch.zeros(4, dtype=torch.bool).index_fill(0, places, True)
    conditional = law.condition(torch.where(there, x, torch.nan), known)
    assert conditional.batch_shape == (5,)
    assert conditional.event_shape == (4 - len(places),)
    whole = law.log_prob(x, there) + conditional.log_prob(x[:, ~there])
    torch.testing.assert_close(whole, law.log_prob(x), rtol=0, atol=1e-8)


@every_model
def test_conditionals_are_those_of_draws_nearby(name):
    law = make(name, 3)
    torch.manual_seed(1)
    x = law.sample((200_000,)).double()
    value = torch.where(torch.arange(3) == 0, take(marginals(law), (..., 0)).icdf(torch.tensor(0.1).double()), 0.0)
    near = x[(x[:, 0] - value[0]).abs() < 0.02]
    conditional = law.condition(value, [0])
    for p in (0.1, 0.5, 0.9):
        quantile = icdf(marginals(conditional), torch.tensor(p).double())
        share = (near[:, 1:] <= quantile).double().mean(0)
        assert ((share - p).abs() < 5 * np.sqrt(p * (1 - p) / len(near)) + 0.003).all()
    draws = conditional.sample((4_000,)).double()
    ranks = [np.corrcoef(draws.argsort(0).argsort(0).T)[0, 1], np.corrcoef(near[:, 1:].argsort(0).argsort(0).T)[0, 1]]
    assert abs(ranks[0] - ranks[1]) < 0.06


@every_model
def test_draws_have_the_marginals_and_the_density(name):
    law = make(name)
    torch.manual_seed(2)
    x = law.sample((4_000,)).double()
    for n in range(4):
        pit = cdf(take(marginals(law), (..., n)), x[:, n])
        assert stats.kstest(pit.numpy(), "uniform").pvalue > 1e-3
    other = MODELS[name](0.5 * LOADINGS, DF)
    if name != "independent":
        assert law.log_prob(x).mean() > other.log_prob(x).mean()
        # E[q(X) / p(X)] = 1 under p.
        ratio = torch.exp(other.log_prob(x) - law.log_prob(x))
        assert abs(ratio.mean() - 1) < 5 * ratio.std() / len(x) ** 0.5 + 0.02
    assert torch.equal(*[(torch.manual_seed(7), law.sample((3,)))[1] for _ in range(2)])


@pytest.mark.parametrize("along", [True, pytest.param(False, marks=pytest.mark.slow)])
@every_model
def test_gradients_reach_what_it_is_made_of(name, along):
    """Along random directions, or element by element."""
    x = torch.tensor([[0.3, -1.0, 0.7, 0.1], [-2.0, -1.0, 0.2, 3.0]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False, True], [True, True, True, True]])
    leaves = (LOADINGS.clone().requires_grad_(), DF.clone().requires_grad_())
    uses = tuple(leaf for leaf in leaves if name not in ("independent", "normal", "gaussian_copula") or leaf.ndim)
    if name == "independent":
        uses = ()

    def density(x, *uses):
        return MODELS[name](*(*uses, *leaves[len(uses) :])).log_prob(x, mask)

    assert torch.autograd.gradcheck(density, (x, *uses), rtol=1e-4, atol=1e-5, fast_mode=along)


def test_gradients_reach_marginals_and_draws():
    scale = SCALE[:4].clone().requires_grad_()
    L, df = LOADINGS.clone().requires_grad_(), DF.clone().requires_grad_()
    x = torch.tensor([0.3, -1.0, 0.7, 0.1], dtype=torch.float64)
    joint = lambda scale: JointDistribution(StudentT(4.0, 0.0, scale), StudentTCopula(df, L))  # noqa: E731
    assert torch.autograd.gradcheck(lambda scale: joint(scale).log_prob(x), (scale,), rtol=1e-4, atol=1e-5)
    joint(scale).rsample((50,)).square().sum().backward()
    for leaf in (scale, L, df):
        assert leaf.grad.isfinite().all()
        assert (leaf.grad != 0).all()


def test_missing_values_leave_gradients_finite_and_equal():
    mask = torch.tensor([True, False, True, True])
    gradients = []
    for hole in (torch.nan, 1e300, 0.0):
        L, df = LOADINGS.clone().requires_grad_(), DF.clone().requires_grad_()
        x = torch.where(mask, torch.ones(4).double(), hole).requires_grad_()
        law = JointDistribution(skewed(4), StudentTCopula(df, L))
        gradients.append(torch.autograd.grad(law.log_prob(x, mask), (x, L, df)))
    for others in gradients[1:]:
        for one, other in zip(gradients[0], others, strict=True):
            assert one.isfinite().all()
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_densities_are_scipys():
    x = 2 * torch.randn(30, 4).double()
    correlation = StudentTCopula(DF, LOADINGS).correlation.numpy()
    t = JointDistribution(StudentT(DF.expand(4)), StudentTCopula(DF, LOADINGS))
    expected = stats.multivariate_t(shape=correlation, df=DF.item()).logpdf(x)
    np.testing.assert_allclose(t.log_prob(x), expected, rtol=0, atol=1e-9)
    normal = JointDistribution(Normal(torch.zeros(4).double(), 1.0), GaussianCopula(LOADINGS))
    np.testing.assert_allclose(normal.log_prob(x), stats.multivariate_normal(cov=correlation).logpdf(x), atol=1e-10)
    y = torch.randn(5, 2).double()
    given = t.condition(x[:5], [1, 3])
    direct = make("multivariate_t").condition(x[:5], [1, 3])
    torch.testing.assert_close(given.log_prob(y), direct.log_prob(y), rtol=0, atol=1e-9)
    torch.testing.assert_close(given.mean, direct.mean, rtol=0, atol=1e-6)


def test_the_gaussian_is_the_limit():
    u = torch.rand(20, 4).double()
    gaussian = GaussianCopula(LOADINGS).log_prob(u)
    for df, error in ((1e4, 0.02), (1e6, 2e-4), (1e9, 1e-6)):
        torch.testing.assert_close(
            StudentTCopula(torch.tensor(df).double(), LOADINGS).log_prob(u), gaussian, rtol=0, atol=error
        )


def test_each_dates_own_df_and_loadings_are_the_shared_ones():
    u, mask = torch.rand(3, 4).double(), torch.rand(3, 4) > 0.3
    shared = StudentTCopula(DF, LOADINGS)
    own = StudentTCopula(DF.expand(3), LOADINGS.expand(3, 4, 2))
    torch.testing.assert_close(shared.log_prob(u, mask), own.log_prob(u, mask), rtol=0, atol=1e-9)
    assert take(own, slice(1, 3)).batch_shape == (2,)
    torch.testing.assert_close(take(own, 1).log_prob(u[1], mask[1]), own.log_prob(u, mask)[1], rtol=0, atol=1e-9)
    joint = JointDistribution(skewed(4).expand(torch.Size([3, 4])), own)
    assert joint.batch_shape == (3,)
    torch.testing.assert_close(take(joint, 1).log_prob(u[1]), joint.log_prob(u)[1], rtol=0, atol=1e-9)
    wide = JointDistribution(skewed(4), shared).expand(torch.Size([2, 3]))
    draws = wide.sample((5,))
    assert draws.shape == (5, 2, 3, 4)
    assert len(draws.flatten(0, 2)[:, 0].unique()) == 30
    assert wide.mean.shape == (2, 3, 4)


@pytest.mark.parametrize("df", [2.0, 4.0, 30.0, 1e6])
def test_tabulated_scores_are_quantiles(df):
    s = torch.linspace(-8, 8, 999, dtype=torch.float64)
    nu = torch.tensor(df, dtype=torch.float64)
    z = to_student_t(s, nu)
    exact = torch.where(s < 0, 1.0, -1.0) * t_icdf(ndtr(-s.abs()), nu)
    torch.testing.assert_close(z, exact, rtol=3e-11, atol=1e-15)
    torch.testing.assert_close(to_normal(z, nu), s, rtol=0, atol=5e-8)
    each = nu.expand(999)
    torch.testing.assert_close(to_student_t(s, each), exact, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(to_normal(exact, each), s, rtol=1e-9, atol=1e-9)


def test_conditioned_laws_have_consistent_functions():
    law = make("t_copula").condition(torch.tensor([-3.0, torch.nan, torch.nan, torch.nan]).double(), [0]).marginals
    p = torch.tensor([1e-6, 0.01, 0.5, 0.99], dtype=torch.float64).unsqueeze(-1)
    x = law.icdf(p)
    torch.testing.assert_close(law.cdf(x), p.expand(4, 3), rtol=1e-9, atol=0)
    torch.testing.assert_close(torch.exp(law.log_cdf(x)) + torch.exp(law.log_sf(x)), torch.ones(4, 3).double())
    step = 1e-5
    slope = (law.cdf(x + step) - law.cdf(x - step)) / (2 * step)
    torch.testing.assert_close(torch.exp(law.log_prob(x))[1:], slope[1:], rtol=1e-5, atol=0)
    draws = law.sample((40_000,))
    assert ((draws.mean(0) - law.mean).abs() < 5 * law.variance.sqrt() / 200).all()
    tail = draws.sort(0).values[:2_000].mean(0)
    torch.testing.assert_close(tail_mean(law, torch.tensor(0.05).double()), tail, rtol=0.1, atol=0)


@pytest.mark.slow
def test_densities_compile_without_a_graph_break():
    command = [sys.executable, "-m", "tests.distributions.compiled_joint"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]


def test_float32_in_float32_out():
    small = JointDistribution(StudentT(4.0, torch.zeros(4), 1.0), StudentTCopula(3.5, LOADINGS.float()))
    exact = JointDistribution(StudentT(torch.full((4,), 4.0).double()), StudentTCopula(DF, LOADINGS.float().double()))
    x = 3 * torch.randn(9, 4)
    assert small.log_prob(x).dtype == small.copula.log_prob(x.sigmoid()).dtype == torch.float32
    torch.testing.assert_close(small.log_prob(x).double(), exact.log_prob(x.double()), rtol=0, atol=2e-6)


def test_uniforms_at_the_ends_count_as_near():
    copula = StudentTCopula(DF, LOADINGS)
    u = torch.tensor([0.0, 1.0, 0.3, 0.5], dtype=torch.float64)
    assert copula.log_prob(u).isfinite()
    torch.testing.assert_close(copula.log_prob(u), copula.log_prob(u.clamp(1e-16, 1 - 2**-53)))
    assert normal_scores(u).isfinite().all()


def test_errors_name_what_is_wrong():
    with pytest.raises(
        ValueError, match=r"rows are shorter than 1, of unit variances; 1 of 2 are not, the first is 1\.2"
    ):
        GaussianCopula(torch.tensor([[1.2], [0.5]]))
    with pytest.raises(ValueError, match="df=-1.0: give positive, finite degrees of freedom"):
        StudentTCopula(-1.0, LOADINGS)
    with pytest.raises(ValueError, match=r"here of batch \(3,\) and event \(\), and a copula of N coordinates, here 4"):
        JointDistribution(skewed(3), GaussianCopula(LOADINGS))
    law = make("t_copula")
    x = torch.zeros(4).double()
    with pytest.raises(ValueError, match=r"value of shape \(3,\) must end in the law's N = 4"):
        law.log_prob(x[:3])
    with pytest.raises(ValueError, match="finite values where they are known; 1 of 2 are not, the first at position 2"):
        law.condition(torch.where(torch.arange(4) == 2, torch.nan, x), [0, 2])
    with pytest.raises(ValueError, match="comes twice"):
        law.marginal([1, -3])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", ["t_copula", "gaussian_copula"])
def test_dates_are_concatenated(name, shared):
    """A walk's forecasts, with a copula for each stretch of dates or one for each date."""
    torch.manual_seed(0)
    laws = []
    for days in (2, 3):
        L = LOADINGS[:3] * (0.9 if days == 3 else 1.0)
        batch = () if shared else (days, 1)
        copula = GaussianCopula(L.expand(*batch, 3, 2)) if name[0] == "g" else StudentTCopula(DF + torch.rand(batch), L)
        laws.append(JointDistribution(skewed(3).expand((days, 1, 3)), copula))
    x = torch.randn(5, 1, 3).double()
    whole = concatenate(laws)
    assert whole.batch_shape == (5, 1)
    apart = torch.cat([law.log_prob(part) for law, part in zip(laws, x.split((2, 3)), strict=True)])
    torch.testing.assert_close(whole.log_prob(x), apart)
    other = JointDistribution(skewed(3).expand((2, 1, 3)), GaussianCopula(LOADINGS[:3, :1]))
    with pytest.raises(ValueError, match=r"copulas of one class, assets and factors.*GaussianCopula \(3, 1\)"):
        concatenate([laws[0], other])
