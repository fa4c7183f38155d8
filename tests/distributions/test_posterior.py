"""Predictive mixtures: the law of total variance, through maps, nested, and beside laws that are sure."""

import pandas as pd
import pytest
import torch
from torch.distributions import Normal

from qtorch import Forecast
from qtorch.distributions import Affine, Mixture, Posterior, Stacked, StudentT, decompose, over_draws, stack, take
from qtorch.risk import value_at_risk
from qtorch.training import mixed


def posterior(seed=0, K=3, shape=(4, 2)):
    g = torch.Generator().manual_seed(seed)
    loc, scale = torch.randn(*shape, K, generator=g).double(), torch.rand(*shape, K, generator=g).double() + 0.1
    return Posterior(torch.rand(*shape, K, generator=g).double() + 0.1, StudentT(5.0, loc, scale))


def test_parts_sum_to_the_variance_and_agree_with_draws():
    law = posterior()
    parts = decompose(law)
    torch.testing.assert_close(parts.aleatoric + parts.epistemic, law.variance)
    weights, means = over_draws(law, lambda part: part.mean)
    torch.manual_seed(0)
    k = torch.distributions.Categorical(weights).sample((100_000,))
    drawn = means.expand(100_000, *means.shape).gather(-1, k.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(parts.epistemic, drawn.var(0), rtol=0.03, atol=0)


def test_maps_and_nesting_keep_the_draws():
    law, other = posterior(), posterior(1)
    moved = Affine(law, 0.5, torch.tensor([2.0, 3.0]).double())
    for one, two in zip(decompose(moved), decompose(law), strict=True):
        torch.testing.assert_close(one, two * torch.tensor([4.0, 9.0]).double())
    both = Posterior(torch.tensor([0.25, 0.75]).double(), stack([moved, Affine(other, 0.0, torch.ones(2).double())]))
    weights, means = over_draws(both, lambda part: part.mean)
    assert weights.shape == (4, 2, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 2).double())
    torch.testing.assert_close((weights * means).sum(-1), both.mean)
    torch.testing.assert_close(sum(decompose(both)), both.variance)
    part = take(both, slice(1, 3))
    assert isinstance(part, Posterior)
    torch.testing.assert_close(decompose(part).epistemic, decompose(both).epistemic[1:3])


def test_a_plain_mixture_is_no_doubt_of_the_model():
    law = posterior()
    parts = decompose(Mixture(law.weights, law.components))
    assert (parts.epistemic == 0).all()
    sure, unsure = Normal(torch.zeros(4, 2).double(), 1.0), posterior()
    both = Posterior(torch.tensor([0.5, 0.5]).double(), Stacked([sure, unsure]))
    weights, _ = over_draws(both, lambda part: part.mean)
    assert weights.shape == (4, 2, 6)
    torch.testing.assert_close(weights[..., 0].unique(), torch.tensor([0.5]).double())
    torch.testing.assert_close(sum(decompose(both)), both.variance)


def test_a_forecasts_band_is_of_its_members_values_at_risk():
    dates, there = pd.DatetimeIndex(["2024-05-03"]), torch.tensor([[True, True, False]])
    members = [
        Forecast(
            StudentT(4.0, torch.zeros(1, 1, 3), s * torch.ones(1, 1, 3)), there, there.byte(), dates, tuple("abc"), (1,)
        )
        for s in (0.01, 0.02, 0.04)
    ]
    with pytest.raises(ValueError, match="decompose needs a forecast that knows how sure"):
        members[0].decompose()
    law = mixed(members)
    low, high = law.epistemic_interval(0.99)
    each = [value_at_risk(member.distribution, 0.99) for member in members]
    torch.testing.assert_close(low[..., :2], each[0][..., :2].double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(high[..., :2], each[2][..., :2].double(), rtol=1e-6, atol=0)
    assert low[..., 2].isnan().all()
    parts = law.decompose()
    assert (parts.epistemic[..., :2] == 0).all()  # they agree on the mean
    torch.testing.assert_close(parts.aleatoric[..., :2].sqrt(), law.volatility[..., :2])
    with pytest.raises(ValueError, match="mass=1"):
        law.epistemic_interval(0.99, 1.0)


@pytest.mark.parametrize("kind", [Mixture, Posterior])
def test_what_weighs_nothing_counts_for_nothing_be_it_infinite(kind):
    weights = torch.tensor([0.25, 0.75, 0.0])
    df, loc = torch.tensor([5.0, 8.0, 1.5]), torch.tensor([-1.0, 1.0, 0.0])
    law, rest = (kind(weights[:k], StudentT(df[:k], loc[:k], torch.ones(k))) for k in (3, 2))
    assert law.components.variance.isinf().any()
    torch.testing.assert_close(law.mean, rest.mean)
    torch.testing.assert_close(law.variance, rest.variance)
    for part, expected in zip(decompose(law), decompose(rest), strict=True):
        torch.testing.assert_close(part, expected)
    torch.testing.assert_close(
        decompose(Posterior(weights, Normal(torch.tensor([-1.0, 1.0, torch.inf]), torch.ones(3)))).epistemic,
        torch.tensor(0.75),
    )
