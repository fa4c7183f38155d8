import pytest
import torch
from torch.distributions import Normal

from qtorch.distributions import (
    Affine,
    Empirical,
    ExpMinusOne,
    JumpStudentT,
    Mixture,
    QuantileSpline,
    SkewedStudentT,
    SplicedTails,
    Stacked,
    StudentT,
    concatenate,
    log_cdf,
    log_sf,
    log_tails,
    partial_mean,
    stack,
    tail_mean,
    take,
)
from qtorch.distributions.cumulative import cdf, icdf

SHAPE = (3, 2)


def numbers(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(SHAPE, generator=generator, dtype=torch.float64) + 0.5


def skewed(seed):
    return SkewedStudentT(3 + numbers(seed), numbers(seed + 1), numbers(seed + 2), 1.0)


LAWS = {
    "normal": lambda seed: Normal(numbers(seed), 2.0),
    "skewed_student_t": skewed,
    "affine": lambda seed: Affine(skewed(seed), 0.0, numbers(seed + 5)),
    "empirical": lambda seed: Empirical(torch.randn(*SHAPE, 7, generator=torch.Generator().manual_seed(seed))),
    "weighted": lambda seed: Empirical(
        numbers(seed)[..., None] * torch.arange(1, 5), numbers(seed)[..., None].expand(3, 2, 4)
    ),
    "mixture": lambda seed: Mixture(
        torch.tensor([0.3, 0.7]), StudentT(5.0, numbers(seed)[..., None].expand(3, 2, 2), numbers(seed + 1)[..., None])
    ),
    "exp_minus_one": lambda seed: ExpMinusOne(Normal(numbers(seed), 0.1)),
    "jump_student_t": lambda seed: JumpStudentT(batch_shape=torch.Size(SHAPE)),
    "spliced_tails": lambda seed: SplicedTails(skewed(seed), 0.05, 0.1 * numbers(seed)),
    "quantile_spline": lambda seed: QuantileSpline.from_quantiles(
        [0.1, 0.5, 0.9], numbers(seed)[..., None] * torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_stacked_laws_are_taken_apart_again(name):
    laws = [LAWS[name](seed) for seed in (0, 10, 20)]
    together = stack(laws)
    assert type(together) is type(laws[0])
    assert together.batch_shape == (*SHAPE, 3)
    p = torch.tensor(0.03, dtype=torch.float64)
    for k, law in enumerate(laws):
        part = take(together, (..., k))
        assert part.batch_shape == SHAPE
        for one in (part, take(together, (slice(None), slice(None), k))):
            torch.testing.assert_close(one.icdf(p), law.icdf(p))
            torch.testing.assert_close(one.mean, law.mean)


@pytest.mark.parametrize("name", LAWS)
def test_concatenated_laws_are_taken_apart_again(name):
    laws = [LAWS[name](0), take(LAWS[name](10), slice(1, None))]
    together = concatenate(laws)
    assert together.batch_shape == (5, 2)
    p = torch.tensor(0.03, dtype=torch.float64)
    torch.testing.assert_close(together.icdf(p), torch.cat([law.icdf(p) for law in laws]))
    torch.testing.assert_close(take(together, slice(3, None)).icdf(p), laws[1].icdf(p))


def test_a_mixture_of_stacked_laws_has_the_mean_of_their_distribution_functions():
    laws = [LAWS["affine"](seed) for seed in (0, 10, 20, 30)]
    mixture = Mixture(torch.ones(4, dtype=torch.float64), stack(laws))
    x = torch.linspace(-3, 3, 5, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(mixture.cdf(x), torch.stack([law.cdf(x) for law in laws]).mean(0))
    p = torch.tensor(0.01, dtype=torch.float64)
    torch.testing.assert_close(mixture.cdf(mixture.icdf(p)), p.expand(SHAPE), rtol=1e-12, atol=0)


def test_gradients_reach_every_part():
    loc = [torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)]
    stack([Normal(one, 1.0) for one in loc]).mean.sum().backward()
    assert all((one.grad == 1).all() for one in loc)


def test_what_cannot_be_joined_is_named():
    with pytest.raises(ValueError, match="one class are joined, not \\['Normal', 'SkewedStudentT'\\]"):
        concatenate([LAWS["normal"](0), skewed(0)])
    with pytest.raises(ValueError, match="not \\[\\]"):
        stack([])
    with pytest.raises(ValueError, match="one batch shape are stacked"):
        stack([LAWS["normal"](0), take(skewed(0), slice(1, None))])
    with pytest.raises(ValueError, match="must be kept whole"):
        take(stack([LAWS["normal"](0), skewed(0)]), 0)
    with pytest.raises(ValueError, match="can't be expanded"):
        stack([LAWS["normal"](0), skewed(0)]).expand((3, 2, 4))
    with pytest.raises(ValueError, match="not \\[\\]"):
        concatenate([])
    with pytest.raises(ValueError, match="of one batch shape are stacked, not of \\[\\(3, 2\\), \\(2, 2\\)\\]"):
        stack([skewed(0), take(skewed(0), slice(1, None))])
    with pytest.raises(ValueError, match="along the first dimension"):
        concatenate([skewed(0), take(skewed(0), (slice(None), 0))])
    with pytest.raises(ValueError, match="not all of the laws to join have a lower_scale"):
        stack([SplicedTails(skewed(0), 0.05, 0.1, lower_scale=1.0), SplicedTails(skewed(0), 0.05, 0.1)])
    with pytest.raises(ValueError, match="as many values"):
        concatenate([LAWS["empirical"](0), Empirical(torch.randn(*SHAPE, 5))])
    with pytest.raises(ValueError, match="several can't be joined"):
        stack([JumpStudentT(batch_shape=torch.Size(SHAPE)), JumpStudentT(4.0, batch_shape=torch.Size(SHAPE))])


UNLIKE = ("normal", "skewed_student_t", "affine", "mixture")
METHODS = {
    "log_prob": lambda law, x: law.log_prob(x),
    "cdf": cdf,
    "icdf": lambda law, x: icdf(law, torch.sigmoid(x)),
    "log_cdf": log_cdf,
    "log_sf": log_sf,
    "log_tails_below": lambda law, x: log_tails(law, x)[0],
    "log_tails_above": lambda law, x: log_tails(law, x)[1],
    "partial_mean": partial_mean,
    "tail_mean": lambda law, x: tail_mean(law, torch.sigmoid(x)),
    "mean": lambda law, x: law.mean,
    "variance": lambda law, x: law.variance,
    "entropy": lambda law, x: law.entropy(),
}


@pytest.mark.parametrize("method", METHODS)
def test_laws_of_several_classes_stand_side_by_side(method):
    laws = [LAWS[name](seed) for seed, name in enumerate(UNLIKE)]
    together, function = stack(laws), METHODS[method]
    assert isinstance(together, Stacked)
    assert together.batch_shape == (*SHAPE, len(laws))
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = torch.stack([function(law, x).double() for law in laws], dim=-1)
    torch.testing.assert_close(function(together, x.unsqueeze(-1)).double(), expected, rtol=1e-12, atol=1e-15)
    one_each = x.unsqueeze(-1) + torch.arange(len(laws))
    expected = torch.stack([function(law, one_each[..., k]).double() for k, law in enumerate(laws)], dim=-1)
    torch.testing.assert_close(function(together, one_each).double(), expected, rtol=1e-12, atol=1e-15)


def test_a_mixture_of_unlike_laws_inverts_takes_joins_and_draws():
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)

    def mixture(seed):
        return Mixture(weights, stack([LAWS[name](seed) for name in UNLIKE[:3]]))

    law = mixture(0)
    for p in (1e-8, 0.01, 0.5, 0.999):
        x = law.icdf(torch.tensor(p, dtype=torch.float64))
        torch.testing.assert_close(law.cdf(x), torch.full(SHAPE, p, dtype=torch.float64), rtol=1e-11, atol=0)
    part = take(law, (slice(1, None), 0))
    assert part.batch_shape == (2,)
    p = torch.tensor(0.05, dtype=torch.float64)
    torch.testing.assert_close(part.icdf(p), law.icdf(p)[1:, 0], rtol=1e-12, atol=0)
    both = concatenate([law, mixture(7)])
    assert both.batch_shape == (6, 2)
    torch.testing.assert_close(both.icdf(p)[3:], mixture(7).icdf(p), rtol=1e-12, atol=0)
    torch.manual_seed(0)
    draws = law.sample(torch.Size([20_000]))
    error = law.variance.sqrt() / 20_000**0.5
    assert ((draws.mean(0) - law.mean).abs() < 4 * error).all()
