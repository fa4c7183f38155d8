"""Joint laws of a cross-section: any marginals, and a copula."""

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions import coordinates
from qtorch.distributions.affine import Affine
from qtorch.distributions.conditioned import Conditioned
from qtorch.distributions.copula_like import CopulaLike
from qtorch.distributions.cumulative import icdf, ndtr
from qtorch.distributions.indexing import keep_last, take
from qtorch.distributions.log_tails import score
from qtorch.errors import ArgumentError


class JointDistribution(Distribution):
    """The law of X_n = Q_n(U_n), Q the marginals' quantile functions and U of a copula.

    Exact where coordinates are missing: their rows are not there. Given some coordinates, the others are again a
    `JointDistribution`, of `Conditioned` marginals.

    Args:
        marginals: univariate laws of batch shape `[..., N]`, with `log_prob`, `cdf` and `icdf`.
        copula: of `N` coordinates, such as a `StudentTCopula` or an `AttentionalCopula`; its batch shape broadcasts
            against that of the marginals.

    Raises:
        ValueError: marginals and copula disagree about N, or the marginals have an event dimension.

    Example:
        >>> from qtorch.distributions import StudentT, StudentTCopula
        >>> joint = JointDistribution(StudentT(3.0, torch.zeros(3), 0.01), StudentTCopula(4.0, torch.full((3, 1), 0.8)))
        >>> crash = torch.tensor([-0.05, torch.nan, -0.04])
        >>> round(joint.log_prob(crash, crash.isfinite()).item(), 2)
        1.84
        >>> round(joint.condition(crash, crash.isfinite()).marginals.mean.item(), 4)
        -0.0351
    """

    arg_constraints = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, marginals: Distribution, copula: CopulaLike) -> None:
        if marginals.event_shape or marginals.batch_shape[-1:] != copula.event_shape:
            raise ArgumentError(
                f"A joint law needs univariate marginals [..., N], here of batch {tuple(marginals.batch_shape)} and "
                f"event {tuple(marginals.event_shape)}, and a copula of N coordinates, here {copula.event_shape[0]}."
            )
        batch = torch.broadcast_shapes(marginals.batch_shape[:-1], copula.batch_shape)
        self.marginals, self.copula = marginals, copula
        super().__init__(batch, copula.event_shape, validate_args=False)

    def expand(self, batch_shape: _size, _instance: object = None) -> "JointDistribution":
        """The law expanded to a batch shape; the copula's parameters stay where they are."""
        return JointDistribution(self.marginals.expand(torch.Size((*batch_shape, *self.event_shape))), self.copula)

    @property
    def mean(self) -> Float[Tensor, "... N"]:
        """Means of the coordinates."""
        return self.marginals.mean.expand(self._extended_shape())

    @property
    def variance(self) -> Float[Tensor, "... N"]:
        """Variances of the coordinates."""
        return self.marginals.variance.expand(self._extended_shape())

    def log_prob(
        self, value: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float[Tensor, "..."]:
        """Log density at `value`, or with a mask that of the joint law of the coordinates that are there.

        Args:
            value: `[..., N]`, broadcasts against the batch shape.
            mask: True where a value counts; the others, which may be NaN, take part in neither density nor gradient.
                All True by default; where all are False the result is 0. What the copula itself leaves
                out never counts.

        Raises:
            ValueError: the last dimension of value or mask is not N.
        """
        there = self._there(value, mask)
        x = torch.where(there, value, 0.0)
        own = torch.where(there, self.marginals.log_prob(x), 0.0)
        result = own.double().sum(-1) + self.copula.log_prob_of_scores(torch.where(there, self.scores(x), 0.0), mask)
        return result.to(own.dtype)

    def scores(self, value: Float[Tensor, "... N"]) -> Float64[Tensor, "... N"]:
        """Normal scores of the marginals' transforms: each standard normal, and jointly normal under a Gaussian copula.

        Args:
            value: `[..., N]`.
        """
        return score(self.marginals, value, torch.special.ndtri)

    def transforms(self, value: Float[Tensor, "... N"]) -> Float64[Tensor, "... N"]:
        """The marginals' probability integral transforms, which the copula is the law of."""
        return ndtr(self.scores(value))

    def returns(self, scores: Float64[Tensor, "... N"]) -> Float[Tensor, "... N"]:
        """The values of normal scores: the inverse of `scores`."""
        return icdf(self.marginals, ndtr(scores).clamp(1e-16, 1 - 2**-53))

    def marginal(self, index: Sequence[int] | slice | Tensor) -> "JointDistribution":
        """The joint law of some coordinates, in the order of `index`: positions, a slice or a bool mask `[N]`.

        Raises:
            ValueError: a mask is not `[N]`, or a position comes twice.
        """
        # Positions on the CPU index tensors of any device.
        device = index.device if isinstance(index, Tensor) else torch.device("cpu")
        places = coordinates.positions(index, self.event_shape[0], device)
        return JointDistribution(take(self.marginals, (..., places)), self.copula.marginal(places))

    def condition(self, value: Float[Tensor, "... N"], known: Sequence[int] | slice | Tensor) -> "JointDistribution":
        """The law of the unknown coordinates, in their order, given the known: Tokyo has closed, New York has not.

        Args:
            value: `[..., N]`; what stands at unknown places is not looked at.
            known: a bool mask `[N]`, one for the whole batch, positions or a slice.

        Raises:
            ValueError: a mask is not `[N]`, a position comes twice, or a known value is not finite.
        """
        N, device = self.event_shape[0], value.device
        coordinates.require_event(value, "value", N)
        k = coordinates.positions(known, N, device)
        coordinates.require_known(value[..., k], k)
        is_known = torch.zeros(N, dtype=torch.bool, device=device).index_fill(0, k, True)
        given = self.copula.condition(self.scores(torch.where(is_known, value, 0.0)), k)
        rest = take(self.marginals, (..., coordinates.others(k, N)))
        return JointDistribution(Conditioned(rest, given.prior, given.posterior), given.copula)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws from torch's generator; they differentiate if the marginals' quantiles do."""
        return self.returns(self.copula.expand(self.batch_shape).rsample_scores(sample_shape))

    def _there(self, value: Tensor, mask: Tensor | None) -> Bool[Tensor, "... N"]:
        coordinates.require_event(value, "value", self.event_shape[0])
        there = coordinates.there(mask, self.event_shape[0], value.device)
        own = getattr(self.copula, "mask", None)  # of a copula that leaves assets out by itself
        return there if own is None else torch.logical_and(there, own)


@singledispatch
def rescaled(distribution: Distribution, scale: Tensor) -> Distribution:
    """The law of scale times X: of each coordinate of a joint law, whose copula stays, or of a univariate law.

    Args:
        distribution: of X.
        scale: positive; broadcasts against the batch shape, and the event's if the law is joint.
    """
    return Affine(distribution, 0.0, scale)


@rescaled.register
def _rescaled_joint(distribution: JointDistribution, scale: Tensor) -> JointDistribution:
    return JointDistribution(Affine(distribution.marginals, 0.0, scale), distribution.copula)


@take.register
def _joint(distribution: JointDistribution, index: Any) -> JointDistribution:
    marginals = take(distribution.marginals.expand(distribution._extended_shape()), keep_last(index))
    copula: Any = distribution.copula
    if copula.batch_shape:
        copula = take(copula.expand(distribution.batch_shape), index)
    return JointDistribution(marginals, copula)
