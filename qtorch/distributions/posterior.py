"""Predictive laws: mixtures over what a model might be, and what they say of how sure it is."""

from collections.abc import Callable
from functools import reduce, singledispatch
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from qtorch.distributions.affine import Affine
from qtorch.distributions.exp_minus_one import ExpMinusOne
from qtorch.distributions.mixture import Mixture, average
from qtorch.distributions.stacked import Stacked

Measure = Callable[[Distribution], Tensor]  # of the batch shape of a law


class Posterior(Mixture):
    """A mixture whose components are what a model might be: draws from a posterior, members of an ensemble.

    As a law it is a `Mixture`, of which everything is predicted. But it knows that its components disagree because the
    model is unsure (epistemic uncertainty), while those of a plain mixture are of the law itself (aleatoric).

    Args:
        weights: probabilities `[..., K]`; scaled to sum to 1.
        components: of batch shape `[..., K]`, such as laws of K draws of a network's weights.
        validate_args: False skips the check of the weights.

    Raises:
        ValueError: as of `Mixture`.

    Example:
        >>> from torch.distributions import Normal
        >>> law = Posterior(torch.tensor([0.5, 0.5]), Normal(torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 3.0])))
        >>> parts = decompose(law)
        >>> parts.aleatoric, parts.epistemic
        (tensor(5.), tensor(1.))
    """


class Decomposition(NamedTuple):
    """Parts of a predictive variance, which is their sum.

    Attributes:
        aleatoric: the mean over draws of the variance: what would be left if the model were known.
        epistemic: the variance over draws of the mean: how unsure the model is of it.
    """

    aleatoric: Float[Tensor, "*batch"]
    epistemic: Float[Tensor, "*batch"]


def decompose(law: Distribution) -> Decomposition:
    """The law of total variance over a law's draws.

    Args:
        law: a `Posterior`, one of posteriors, or an affine map or exponential of one. Of any other law all is
            aleatoric.

    References:
        Depeweg, Hernandez-Lobato, Doshi-Velez and Udluft (2018), Decomposition of uncertainty in Bayesian deep
        learning, ICML, equation 6.
    """
    weights, means = over_draws(law, lambda part: part.mean)
    _, variances = over_draws(law, lambda part: part.variance)
    spread = (means - average(weights, means).unsqueeze(-1)) ** 2
    return Decomposition(average(weights, variances), average(weights, spread))


@singledispatch
def over_draws(law: Distribution, measure: Measure) -> tuple[Float[Tensor, "*batch Q"], Float[Tensor, "*batch Q"]]:
    """A measure of each law that a law is a mixture of by being unsure: one if it is sure, K of a `Posterior`.

    Args:
        law: univariate, batch shape `[*batch]`.
        measure: such as the mean, or the value at risk at a level.

    Returns:
        Weights that sum to 1, and the measure under each draw.
    """
    value = measure(law)
    return torch.ones_like(value).unsqueeze(-1), value.unsqueeze(-1)


@over_draws.register
def _posterior(law: Posterior, measure: Measure) -> tuple[Tensor, Tensor]:
    weights, values = over_draws(law.components, measure)
    return (law.weights.to(weights.dtype).unsqueeze(-1) * weights).flatten(-2), values.flatten(-2)


@over_draws.register
def _affine(law: Affine, measure: Measure) -> tuple[Tensor, Tensor]:
    def moved(part: Distribution) -> Tensor:
        loc, scale = (_beside(value, part, law) for value in (law.loc, law.scale))
        return measure(Affine(part, loc, scale))

    return over_draws(law.base, moved)


@over_draws.register
def _exp_minus_one(law: ExpMinusOne, measure: Measure) -> tuple[Tensor, Tensor]:
    return over_draws(law.base, lambda part: measure(ExpMinusOne(part)))


@over_draws.register
def _stacked(law: Stacked, measure: Measure) -> tuple[Tensor, Tensor]:
    """Laws with fewer draws than others get some of weight 0."""
    each = [over_draws(part, measure) for part in law.laws]
    most = max(values.shape[-1] for _, values in each)
    dtype = reduce(torch.promote_types, (values.dtype for _, values in each))
    padded = [[torch.nn.functional.pad(part.to(dtype), (0, most - part.shape[-1])) for part in parts] for parts in each]
    weights, values = (torch.stack(parts, -2) for parts in zip(*padded, strict=True))
    return weights, values


def _beside(value: Tensor, part: Distribution, law: Distribution) -> Tensor:
    """A parameter of a law's batch with dimensions for the draws of a part of it."""
    draws = len(part.batch_shape) - len(law.batch_shape)
    return value.expand(law.batch_shape)[(..., *[None] * draws)]
