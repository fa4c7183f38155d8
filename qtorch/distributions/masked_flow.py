"""The law of a cross-section with holes that a flow makes of a law whose marginals are known."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions import coordinates
from qtorch.distributions.indexing import part_of, take
from qtorch.distributions.joint import JointDistribution, rescaled
from qtorch.distributions.multivariate_student_t import MultivariateStudentT
from qtorch.distributions.transforms import Bijection
from qtorch.errors import ArgumentError


class MaskedFlow(Distribution):
    """The law of x = s f^-1(z) for the coordinates that are there, z of a base law, f depending on which these are.

    log p(x) = log p(z) + log |det df/dy| - sum log s, y = x / s, of those there alone. Whatever the mask, this is a
    normalised density of them; nothing is imputed for the others. Densities of different masks are not forced to agree:
    that of fewer coordinates is the integral of that of more as far as training on masks of both kinds made it so.
    There are neither distribution functions nor moments of single coordinates in closed form: sample.

    Args:
        base: the law of z, event shape `[N]`.
        transform: f for given coordinates: of a mask `[..., N]` and the states, the bijection, whose ladj counts those
            alone.
        mask: which coordinates there are at all.
        states: what the transform is given of each coordinate, tensors `[..., N, W]` that broadcast to the batch.
        scale: s, positive, `[..., N]` or a number.

    Raises:
        ValueError: mask and base disagree about N.

    Example:
        >>> from qtorch.distributions.transforms import Affine, Composed, Masked
        >>> base = MultivariateStudentT(4.0, torch.zeros(3), 0.8 * torch.ones(3, 1), torch.full((3,), 0.36))
        >>> def twice(there):
        ...     return Composed([Masked(Affine(torch.tensor([0.0, 0.7])), there)])
        >>> law = MaskedFlow(base, twice, torch.tensor([True, True, False]))
        >>> law.log_prob(torch.tensor([0.5, -0.2, torch.nan])).isfinite().item()
        True
        >>> law.sample((2,)).shape
        torch.Size([2, 3])
    """

    arg_constraints = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        base: MultivariateStudentT | JointDistribution,
        transform: Callable[..., Bijection],
        mask: Bool[Tensor, "... N"],
        states: Sequence[Float[Tensor, "... N _"]] = (),
        scale: Float[Tensor, "..."] | None = None,
    ) -> None:
        if base.event_shape != mask.shape[-1:]:
            raise ArgumentError(
                f"A masked flow needs a base law of event [N], here {tuple(base.event_shape)}, and a mask of as many "
                f"coordinates, here {tuple(mask.shape)}."
            )
        self.base, self.transform, self.mask, self.states = base, transform, mask, tuple(states)
        self.scale = torch.ones((), device=mask.device) if scale is None else scale
        batch = torch.broadcast_shapes(base.batch_shape, mask.shape[:-1])
        super().__init__(batch, base.event_shape, validate_args=False)

    @property
    def marginals(self) -> None:
        """None: they have no closed form."""
        return None

    def expand(self, batch_shape: _size, _instance: object = None) -> "MaskedFlow":
        """The law expanded to a batch shape; states and scale stay where they are."""
        mask = self.mask.expand(*batch_shape, *self.event_shape)
        return MaskedFlow(self.base.expand(torch.Size(batch_shape)), self.transform, mask, self.states, self.scale)

    def log_prob(
        self, value: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float[Tensor, "..."]:
        """Log density of the coordinates that are there, 0 where there is none.

        Args:
            value: `[..., N]`, broadcasts against the batch shape.
            mask: which of the law's coordinates count, all by default; values of the others, which may be NaN, take
                part in neither density nor gradient.

        Raises:
            ValueError: the last dimension of value or mask is not N.
        """
        z, ladj, there = self._encoded(value, mask)
        return self.base.log_prob(z, there) + ladj

    def encode(
        self, value: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float[Tensor, "... N"]:
        """The z of an x, NaN where nothing is; arguments as of `log_prob`."""
        z, _, there = self._encoded(value, mask)
        return torch.where(there, z, torch.nan)

    def decode(self, z: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None) -> Float[Tensor, "... N"]:
        """The x of a z, NaN where nothing is; arguments as of `log_prob`."""
        z, there = self._present(z, mask)
        y = self.transform(there, *self.states).inv_and_ladj(z)[0]
        return torch.where(there, y * self.scale, torch.nan)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws without gradients, NaN where nothing is."""
        with torch.no_grad():
            return self.decode(self.base.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws with gradients, NaN where nothing is."""
        return self.decode(self.base.rsample(torch.Size(sample_shape)))

    def _encoded(self, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        x, there = self._present(value, mask)
        z, ladj = self.transform(there, *self.states).call_and_ladj(x / self.scale)
        return z, ladj - torch.where(there, torch.log(self.scale), 0.0).sum(-1), there

    def _present(self, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        N = self.event_shape[0]
        coordinates.require_event(value, "value", N)
        there = torch.logical_and(self.mask, coordinates.there(mask, N, value.device))
        shape = torch.broadcast_shapes(value.shape, there.shape, (*self.base.batch_shape, N))
        return torch.where(there, value, 0.0).expand(shape), there.expand(shape)


@take.register
def _masked_flow(distribution: MaskedFlow, index: Any) -> MaskedFlow:
    law, shape = distribution, distribution.batch_shape
    base: Any = take(law.base.expand(shape), index)
    mask, states = part_of(law.mask, 1, shape, index), [part_of(state, 2, shape, index) for state in law.states]
    scale = law.scale if law.scale.ndim == 0 else part_of(law.scale, 1, shape, index)
    return MaskedFlow(base, law.transform, mask, states, scale)


@rescaled.register
def _rescaled(distribution: MaskedFlow, scale: Tensor) -> MaskedFlow:
    law = distribution
    return MaskedFlow(law.base, law.transform, law.mask, law.states, law.scale * scale)
