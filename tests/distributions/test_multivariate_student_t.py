"""The low-rank multivariate Student-t against scipy, dense linear algebra and its own identities."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from qtorch.distributions import MultivariateStudentT, StudentT, take
from qtorch.distributions.gamma_gaps import digamma_gap, log_gamma_gap
from qtorch.risk import energy_score, variogram_score

N, R = 6, 2
KNOWN = torch.tensor([True, False, True, True, False, False])
PARAMETERS = (
    torch.tensor(4.5).double(),
    torch.linspace(-1, 1, N).double(),
    torch.linspace(-1, 2, N * R).double().reshape(N, R).cos(),
    torch.linspace(0.3, 1.1, N).double(),
)


def make_parameters(*batch, factors=R, df=4.5):
    loc, diagonal = torch.randn(*batch, N).double(), 0.2 + torch.rand(*batch, N).double()
    return torch.tensor(df).double(), loc, torch.randn(*batch, N, factors).double(), diagonal


def make_law(*batch, **settings):
    return MultivariateStudentT(*make_parameters(*batch, **settings))


def scipys(law):
    return stats.multivariate_t(law.loc.numpy(), law.scale_matrix.numpy(), law.df.item(), seed=0)


def dense(law, index):
    """Scipy's law of some coordinates, from the rows and columns of the matrix."""
    matrix = law.scale_matrix[index][:, index]
    return stats.multivariate_t(law.loc[index].numpy(), matrix.numpy(), law.df.item())


@pytest.mark.parametrize("factors", [0, 1, 2, 9])
@pytest.mark.parametrize("df", [0.7, 4.5, 300.0])
def test_density_and_entropy_are_scipys(factors, df):
    law = make_law(factors=factors, df=df)
    x = law.sample((50,))
    np.testing.assert_allclose(law.log_prob(x), scipys(law).logpdf(x), rtol=1e-12, atol=1e-11)
    assert law.entropy().item() == pytest.approx(float(scipys(law).entropy()), abs=1e-11)
    distance = (x - law.loc) @ torch.linalg.inv(law.scale_matrix) * (x - law.loc)
    torch.testing.assert_close(law.mahalanobis(x), distance.sum(-1), rtol=1e-10, atol=0)


@pytest.mark.parametrize("index", [[4, 0, 3], slice(1, 5, 2), torch.tensor([5, -6]), KNOWN, [2]])
def test_a_marginal_is_scipys_of_rows_and_columns(index):
    law = make_law()
    part = law.marginal(index)
    places = torch.arange(N)[index]
    x = part.sample((7,))
    np.testing.assert_allclose(part.log_prob(x), np.reshape(dense(law, places).logpdf(x), 7), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(part.scale_matrix, law.scale_matrix[places][:, places])


def test_a_mask_leaves_the_marginal_of_the_rest():
    law = make_law()
    x, masks = law.sample((40,)), torch.rand(40, N) > 0.4
    masks[0], masks[1] = False, True
    hidden = torch.where(masks, x, torch.nan)
    got, distance = law.log_prob(hidden, mask=masks), law.mahalanobis(hidden, mask=masks)
    assert got[0] == distance[0] == 0
    for row in range(1, 40):
        part = law.marginal(masks[row])
        torch.testing.assert_close(got[row], part.log_prob(x[row, masks[row]]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(distance[row], part.mahalanobis(x[row, masks[row]]), rtol=1e-12, atol=1e-12)
    one = masks[2]
    torch.testing.assert_close(law.log_prob(hidden[2:3], mask=one), got[2:3])


def test_missing_values_leave_gradients_finite_and_equal():
    mask = torch.tensor([True, False, True, True, False, True])
    gradients = []
    for hole in (torch.nan, 1e300, 0.0):
        leaves = [parameter.clone().requires_grad_() for parameter in PARAMETERS]
        x = torch.where(mask, torch.ones(N).double(), hole).requires_grad_()
        law = MultivariateStudentT(*leaves)
        gradients.append(torch.autograd.grad(law.log_prob(x, mask=mask), (x, *leaves)))
    for others in gradients[1:]:
        for one, other in zip(gradients[0], others, strict=True):
            assert one.isfinite().all()
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert (gradients[0][0][~mask] == 0).all()


@pytest.mark.parametrize("known", [KNOWN, [3, 0, 2], slice(0, 4), [], list(range(N))])
def test_a_joint_density_is_the_known_times_the_conditional(known):
    law = make_law(3)
    x = law.sample((5,))
    places = torch.arange(N)[known]
    there = torch.zeros(N, dtype=torch.bool).index_fill(0, places, True)
    conditional = law.condition(torch.where(there, x, torch.nan), known)
    assert conditional.batch_shape == (5, 3)
    assert conditional.event_shape == (N - len(places),)
    assert conditional.df == law.df + len(places)
    whole = law.marginal(places).log_prob(x[..., places]) + conditional.log_prob(x[..., ~there])
    torch.testing.assert_close(whole, law.log_prob(x), rtol=0, atol=1e-10)


def test_conditioning_twice_is_conditioning_once():
    law = make_law()
    x = law.sample()
    at_once = law.condition(x, [0, 2, 3])
    in_turn = law.condition(x, [0, 2]).condition(x[[1, 3, 4, 5]], [1])
    torch.testing.assert_close(in_turn.loc, at_once.loc)
    torch.testing.assert_close(in_turn.scale_matrix, at_once.scale_matrix)


def test_coordinates_may_be_permuted():
    law = make_law(3)
    order = torch.randperm(N)
    x, mask = law.sample((5,)), torch.rand(5, 1, N) > 0.3
    turned = law.marginal(order)
    torch.testing.assert_close(turned.log_prob(x[..., order], mask=mask[..., order]), law.log_prob(x, mask=mask))
    torch.testing.assert_close(turned.variance, law.variance[..., order])
    w = torch.randn(N).double()
    torch.testing.assert_close(turned.combination(w[order]).scale, law.combination(w).scale)


def test_moments_and_marginals():
    law = make_law(3)
    torch.testing.assert_close(law.mean, law.marginals().mean)
    torch.testing.assert_close(law.variance, law.marginals().variance)
    torch.testing.assert_close(law.variance, torch.diagonal(law.covariance_matrix, dim1=-2, dim2=-1))
    assert law.marginals().batch_shape == (3, N)
    x = law.sample()
    for n in range(N):
        torch.testing.assert_close(law.marginal([n]).log_prob(x[:, n : n + 1]), law.marginals().log_prob(x)[:, n])
    wild = MultivariateStudentT(torch.tensor([0.9, 1.5, 2.5]), torch.zeros(2), torch.ones(2, 1), torch.ones(2))
    assert wild.mean.isnan().all(1).tolist() == [True, False, False]
    assert wild.variance.isinf().all(1).tolist() == [True, True, False]
    assert wild.mean.shape == wild.variance.shape == (3, 2)


def test_draws_have_the_laws_combinations_and_distances():
    law = make_law(2, df=3.2)
    x = law.sample((4_000,))
    assert x.shape == (4_000, 2, N)
    weights = torch.stack([torch.eye(N)[1], torch.randn(N), torch.ones(N) / N]).double()
    portfolios = law.combination(weights.unsqueeze(1))
    assert isinstance(portfolios, StudentT)
    assert portfolios.batch_shape == (3, 2)
    pit = portfolios.cdf(torch.einsum("sbn,pn->spb", x, weights))
    for part in pit.flatten(1).unbind(1):
        assert stats.kstest(part.numpy(), "uniform").pvalue > 1e-3
    matrix = law.scale_matrix
    torch.testing.assert_close(portfolios.scale**2, torch.einsum("pn,bnm,pm->pb", weights, matrix, weights))
    torch.testing.assert_close(portfolios.loc, weights @ law.loc.T)
    torch.testing.assert_close(law.scale_product(weights[:, None]), torch.einsum("bnm,pm->pbn", matrix, weights))
    for part in (law.mahalanobis(x) / N).unbind(1):
        assert stats.kstest(part.numpy(), stats.f(N, 3.2).cdf).pvalue > 1e-3


def test_entropy_is_the_mean_of_minus_the_log_density():
    law = make_law()
    surprise = -law.log_prob(law.sample((20_000,)))
    assert abs(surprise.mean() - law.entropy()) < 4 * surprise.std() / math.sqrt(20_000)


def test_gradients_reach_every_parameter():
    leaves = [parameter.clone().requires_grad_() for parameter in PARAMETERS]
    x = torch.randn(2, N).double().requires_grad_()
    mask = torch.rand(2, N) > 0.3
    w = torch.randn(N).double().requires_grad_()

    def conditional(x, *a):
        law = MultivariateStudentT(*a).condition(x, KNOWN)
        return law.df, law.loc, law.factors @ law.factors.mT, law.diagonal

    def combination(w, *a):
        law = MultivariateStudentT(leaves[0], *a).combination(w)
        return law.loc, law.scale

    def draws(*a):
        torch.manual_seed(3)
        return MultivariateStudentT(leaves[0].detach(), *a).rsample((2,))

    assert torch.autograd.gradcheck(lambda x, *a: MultivariateStudentT(*a).log_prob(x), (x, *leaves))
    assert torch.autograd.gradcheck(lambda x, *a: MultivariateStudentT(*a).log_prob(x, mask=mask), (x, *leaves))
    assert torch.autograd.gradcheck(conditional, (x, *leaves))
    assert torch.autograd.gradcheck(combination, (w, *leaves[1:]))
    assert torch.autograd.gradcheck(lambda *a: MultivariateStudentT(*a).entropy(), leaves)
    assert torch.autograd.gradcheck(draws, leaves[1:])


def test_draws_differentiate_in_df_as_quantiles_of_the_chi_square_do():
    one = torch.ones(1).double()
    for df in (1.5, 4.0, 40.0):
        nu = torch.full((200,), df).double().requires_grad_()
        torch.manual_seed(0)
        x = MultivariateStudentT(nu, 0 * one, one.unsqueeze(-1), one).rsample().squeeze(-1)
        (slope,) = torch.autograd.grad(x.sum(), nu)
        torch.manual_seed(0)
        z = (torch.randn(200, 1, dtype=torch.float64) + torch.randn(200, 1, dtype=torch.float64)).squeeze(-1)
        # x = z sqrt(df / chi), and at its probability chi is a function of df.
        z, h = z.numpy(), 1e-5
        probability = special.chdtr(df, df * (z / x.detach().numpy()) ** 2)
        up, down = (z * np.sqrt(nu / (2 * special.gammaincinv(nu / 2, probability))) for nu in (df + h, df - h))
        np.testing.assert_allclose(slope.numpy(), (up - down) / (2 * h), rtol=0.01, atol=1e-4 * np.abs(z).max())


def test_the_normal_is_the_limit():
    for df in (1e6, 1e8, 1e12):
        law = make_law(df=df)
        x = law.loc + 0.5
        normal = stats.multivariate_normal(law.loc.numpy(), law.scale_matrix.numpy())
        # The next term of the expansion in 1 / df.
        Q = law.mahalanobis(x).item()
        term = (Q * Q - 2 * N * Q + N * (N - 2)) / (4 * df)
        assert law.log_prob(x).item() == pytest.approx(normal.logpdf(x) + term, abs=1e-13 + 100 * Q**3 / df**2)
        assert law.entropy().item() == pytest.approx(normal.entropy() + N / df, abs=2e-13 + 100 / df**2)


def test_gaps_of_gamma_functions():
    a, h = torch.meshgrid(
        torch.tensor([0.01, 0.3, 2.0, 40.0]).double(), torch.tensor([0.0, 0.5, 3.0, 2500.0]).double(), indexing="ij"
    )
    expected = torch.lgamma(a + h) - torch.lgamma(a) - h * torch.log(a)
    torch.testing.assert_close(log_gamma_gap(a, h), expected, rtol=1e-14, atol=1e-12)
    torch.testing.assert_close(digamma_gap(a, h), torch.digamma(a + h) - torch.digamma(a), rtol=1e-12, atol=1e-14)
    a = a.requires_grad_()
    (slope,) = torch.autograd.grad(log_gamma_gap(a, h).sum(), a)
    torch.testing.assert_close(slope, digamma_gap(a, h) - h / a, rtol=1e-12, atol=1e-14)


def test_large_factors_lose_no_digits():
    rng = torch.Generator().manual_seed(0)
    F = 1e4 * torch.randn(N, 1, generator=rng, dtype=torch.float64)
    law = MultivariateStudentT(4.0, torch.zeros(N).double(), F, torch.ones(N).double())
    own = torch.randn(N, generator=rng, dtype=torch.float64)
    x = F.squeeze(-1) + own
    # By projection: Q = |own|^2 off the factor, plus the square along it over 1 + |F|^2.
    along = (x @ F) ** 2 / (F * F).sum()
    off = (own * own).sum() - (own @ F) ** 2 / (F * F).sum()
    torch.testing.assert_close(law.mahalanobis(x), (off + along / (1 + (F * F).sum())).squeeze(), rtol=1e-10, atol=0)


def test_five_thousand_coordinates():
    N, S = 5_000, 8
    law = MultivariateStudentT(
        torch.tensor(4.0).double(),
        torch.zeros(N).double(),
        0.01 * torch.randn(N, 20).double(),
        1e-4 * (0.5 + torch.rand(N).double()),
    )
    x, known = law.sample((S,)), torch.arange(N) % 3 == 0
    total = law.log_prob(x)
    first = law.log_prob(x, mask=known)
    torch.testing.assert_close(first + law.condition(x, known).log_prob(x[:, ~known]), total, rtol=1e-12, atol=0)
    own = MultivariateStudentT(law.df, *(p.expand(S, *p.shape).clone() for p in (law.loc, law.factors, law.diagonal)))
    masks = torch.rand(S, N) > 0.3
    torch.testing.assert_close(own.log_prob(x, mask=masks), law.log_prob(x, mask=masks), rtol=1e-12, atol=0)
    torch.testing.assert_close(own.log_prob(x), total, rtol=1e-12, atol=0)


def test_shared_factors_are_each_dates_own():
    df, _, F, D = PARAMETERS
    loc = torch.randn(4, N).double()
    shared = MultivariateStudentT(df, loc, F, D)
    own = MultivariateStudentT(df.expand(4), loc, F.expand(4, N, R), D.expand(4, N))
    assert shared.batch_shape == (4,)
    x, mask = shared.sample((3,)), torch.rand(3, 4, N) > 0.3
    torch.testing.assert_close(shared.log_prob(x, mask=mask), own.log_prob(x, mask=mask))
    torch.testing.assert_close(shared.variance, own.variance)
    torch.testing.assert_close(shared.scale_matrix, own.scale_matrix)
    torch.testing.assert_close(shared.entropy(), own.entropy())
    assert shared.mahalanobis(x[0, 0]).shape == (4,)


@pytest.mark.parametrize("index", [1, slice(1, 3), (..., 0), (slice(1, 3), 1), torch.tensor([2, 0]), (..., [0, 1])])
def test_batches_expand_and_index(index):
    df, _, F, D = PARAMETERS
    law = MultivariateStudentT(df, torch.randn(4, 3, N).double(), F, D + torch.rand(3, N).double())
    part = take(law, index)
    x = torch.randn(N).double()
    torch.testing.assert_close(part.log_prob(x), law.log_prob(x)[index], rtol=1e-13, atol=1e-13)
    assert part.batch_shape == torch.empty(4, 3)[index].shape
    assert part.factors.shape == (N, R)
    wide = law.expand(torch.Size([2, 4, 3]))
    assert wide.batch_shape == wide.log_prob(x).shape == wide.sample().shape[:-1] == (2, 4, 3)
    assert wide.mean.shape == wide.sample().shape
    torch.testing.assert_close(take(wide, 1).log_prob(x), law.log_prob(x))


def test_float32_in_float32_out_at_float64s_accuracy():
    small = MultivariateStudentT(*(parameter.float() for parameter in PARAMETERS))
    exact = MultivariateStudentT(*(parameter.float().double() for parameter in PARAMETERS))
    x = small.sample((20,))
    results = [
        (
            law.log_prob(y),
            law.entropy(),
            law.mahalanobis(y),
            law.variance,
            law.combination(y[0]).scale,
            law.condition(y[0], KNOWN).loc,
            law.marginals().scale,
            law.scale_product(y),
        )
        for law, y in ((small, x), (exact, x.double()))
    ]
    for got, expected in zip(*results, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-6)
    assert x.dtype == small.mean.dtype == torch.float32
    assert small.log_prob(x.double()).dtype == torch.float64
    assert MultivariateStudentT(4.0, *PARAMETERS[1:]).df.dtype == torch.float64


def test_the_same_seed_gives_the_same_draws():
    law = make_law(2)
    draws = [(torch.manual_seed(7), law.sample((3,)))[1] for _ in range(2)]
    torch.testing.assert_close(*draws, rtol=0, atol=0)


def test_draws_are_scenarios_of_the_joint_scores():
    law = make_law(2, df=8.0)
    outcomes = law.sample((100,))
    wrong = MultivariateStudentT(law.df, law.loc, -law.factors.flip(-2), law.diagonal)
    right, other = (
        [score(part.sample((200, 100)), outcomes).mean() for score in (energy_score, variogram_score)]
        for part in (law, wrong)
    )
    assert right[0] < other[0]
    assert right[1] < other[1]


def test_errors_name_what_is_wrong():
    df, loc, F, D = PARAMETERS
    law = MultivariateStudentT(*PARAMETERS)
    bad = torch.where(torch.arange(N) < 2, -1.0, D)
    with pytest.raises(ValueError, match=r"finite diagonal above 0\.0; 2 of 6 are not, the first is -1\.0"):
        MultivariateStudentT(df, loc, F, bad)
    MultivariateStudentT(df, loc, F, bad, validate_args=False)
    with pytest.raises(ValueError, match="finite factors; 2 of 12"):
        MultivariateStudentT(df, loc, torch.where(torch.arange(N)[:, None] == 1, torch.nan, F), D)
    with pytest.raises(ValueError, match="finite df above"):
        MultivariateStudentT(0.0, loc, F, D)
    with pytest.raises(ValueError, match=r"not the shapes \(6,\), \(5, 2\), \(6,\)"):
        MultivariateStudentT(df, loc, F[:5], D)
    for call in (law.log_prob, law.mahalanobis, law.combination, law.scale_product):
        with pytest.raises(ValueError, match=r"shape \(5,\) must end in the law's N = 6"):
            call(loc[:5])
    with pytest.raises(ValueError, match="mask of shape"):
        law.log_prob(loc[:5], mask=KNOWN[:5])
    with pytest.raises(ValueError, match="one vector of N = 6 for the whole batch"):
        law.condition(loc, KNOWN.expand(3, N))
    with pytest.raises(ValueError, match="finite values where they are known; 1 of 3 are not, the first at position 2"):
        law.condition(torch.where(torch.arange(N) == 2, torch.nan, loc), KNOWN)
    with pytest.raises(ValueError, match="comes twice"):
        law.marginal([1, 2, -5])
    with pytest.raises(ValueError, match="must be a vector"):
        law.marginal(torch.tensor(3))
    with pytest.raises(ValueError, match="finite scale above"):
        law.combination(torch.zeros(N).double())
