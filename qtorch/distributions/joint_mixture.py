"""Mixtures of joint laws."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Categorical, Distribution, constraints
from torch.types import _size

from qtorch.distributions.indexing import take
from qtorch.distributions.joining import stack
from qtorch.distributions.joint import rescaled
from qtorch.distributions.posterior import Posterior
from qtorch.errors import ArgumentError


class JointMixture(Distribution):
    """The law of X_k with k drawn with the probabilities `weights`, one k for all coordinates.

    What an ensemble of joint forecasts says: dependence is that of one member or another, not of coordinates that each
    have a member of their own.

    Args:
        weights: probabilities `[K]`; scaled to sum to 1.
        laws: `K` joint laws of one batch shape, event shape `[N]`, whose `log_prob` takes a mask.

    Raises:
        ValueError: there is not one weight of 0 or more for each, or the laws differ in shape.

    Example:
        >>> from qtorch.distributions import GaussianCopula, JointDistribution, StudentT
        >>> marginals = StudentT(4.0, torch.zeros(2), 0.01)
        >>> calm, crash = (JointDistribution(marginals, GaussianCopula(torch.full((2, 1), r))) for r in (0.3, 0.9))
        >>> law = JointMixture(torch.tensor([0.8, 0.2]), [calm, crash])
        >>> x = torch.tensor([-0.04, -0.04])
        >>> bool(calm.log_prob(x) < law.log_prob(x) < crash.log_prob(x))
        True
    """

    arg_constraints = {}
    support = constraints.real_vector

    def __init__(self, weights: Float[Tensor, " K"], laws: Sequence[Distribution]) -> None:
        shapes = {(tuple(law.batch_shape), tuple(law.event_shape)) for law in laws}
        if len(shapes) != 1 or not laws[0].event_shape:
            raise ArgumentError(f"joint laws of one batch and event shape are mixed, not of {sorted(shapes)}.")
        if weights.shape != (len(laws),) or not bool((weights >= 0).all() & (0 < weights.sum() < torch.inf)):
            raise ArgumentError(
                f"{len(laws)} joint laws need as many weights of 0 or more, not all 0; given: {weights}."
            )
        self.weights, self.laws = weights / weights.sum(), tuple(laws)
        super().__init__(laws[0].batch_shape, laws[0].event_shape, validate_args=False)

    def expand(self, batch_shape: _size, _instance: object = None) -> "JointMixture":
        """The law expanded to a batch shape."""
        return JointMixture(self.weights, [law.expand(torch.Size(batch_shape)) for law in self.laws])

    @property
    def marginals(self) -> Posterior | None:
        """The mixtures of the coordinates' laws, batch shape `[..., N]`; None if a member's have no closed form."""
        parts = [law.marginals for law in self._members]
        if any(part is None for part in parts):
            return None
        shape = torch.Size((*self.batch_shape, *self.event_shape))
        return Posterior(self.weights, stack([part.expand(shape) for part in parts]))

    def log_prob(
        self, value: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float[Tensor, "..."]:
        """Log density of the coordinates that are there, 0 where there is none.

        Args:
            value: `[..., N]`, broadcasts against the batch shape.
            mask: which coordinates count, all by default; values of the others take part in neither density nor
                gradient.
        """
        found = torch.stack([law.log_prob(value, mask) for law in self._members], dim=-1)
        tiny = torch.finfo(self.weights.dtype).tiny  # a weight of 0 has no log, nor gradient
        return torch.logsumexp(found + torch.log(self.weights.clamp(min=tiny)).to(found.dtype), dim=-1)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws without gradients, all of a vector from one member; every member is drawn."""
        shape = torch.Size(sample_shape)
        chosen = Categorical(self.weights).sample(torch.Size((*shape, *self.batch_shape)))
        draws = torch.stack([law.sample(shape) for law in self.laws])
        return draws.gather(0, chosen[None, ..., None].expand(1, *draws.shape[1:])).squeeze(0)

    @property
    def _members(self) -> Sequence[Any]:
        return self.laws


@take.register
def _joint_mixture(distribution: JointMixture, index: Any) -> JointMixture:
    return JointMixture(distribution.weights, [take(law, index) for law in distribution.laws])


@rescaled.register
def _rescaled(distribution: JointMixture, scale: Tensor) -> JointMixture:
    return JointMixture(distribution.weights, [rescaled(law, scale) for law in distribution.laws])
