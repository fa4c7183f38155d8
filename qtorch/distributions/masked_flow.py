"""The law of a cross-section with holes that a flow makes of independent draws."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions import coordinates
from qtorch.distributions.transforms import Bijection


class MaskedFlow(Distribution):
    """The law of x = f^-1(z) for the coordinates that are there, z independent, f depending on which these are.

    log p(x) = sum_n log p_n(z_n) + log |det df/dx| over those there. Whatever the mask, this is a normalised density of
    them; nothing is imputed for the others. Densities of different masks are not forced to agree: that of fewer
    coordinates is the integral of that of more as far as training on masks of both kinds made it so. There are neither
    distribution functions nor moments of single coordinates in closed form: sample.

    Args:
        base: laws of the z_n, univariate, of batch shape `[..., N]`.
        transform: f for given coordinates: of a mask `[..., N]`, the bijection, whose ladj counts those alone.
        mask: which coordinates there are at all.

    Raises:
        ValueError: mask and base disagree about N, or the base has an event dimension.
    """

    arg_constraints = {}
    support = constraints.real_vector

    def __init__(
        self, base: Distribution, transform: Callable[[Bool[Tensor, "... N"]], Bijection], mask: Bool[Tensor, "... N"]
    ) -> None:
        if base.event_shape or base.batch_shape[-1:] != mask.shape[-1:]:
            raise ValueError(
                f"A masked flow needs univariate base laws [..., N], here of batch {tuple(base.batch_shape)} and event "
                f"{tuple(base.event_shape)}, and a mask of as many coordinates, here {tuple(mask.shape)}."
            )
        self.base, self.transform, self.mask = base, transform, mask
        super().__init__(base.batch_shape[:-1], base.batch_shape[-1:], validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base."""
        return self.base.has_rsample

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
        return torch.where(there, self.base.log_prob(z), 0.0).sum(-1) + ladj

    def encode(
        self, value: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None
    ) -> Float[Tensor, "... N"]:
        """The z of an x, NaN where nothing is; arguments as of `log_prob`."""
        z, _, there = self._encoded(value, mask)
        return torch.where(there, z, torch.nan)

    def decode(self, z: Float[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None = None) -> Float[Tensor, "... N"]:
        """The x of a z, NaN where nothing is; arguments as of `log_prob`."""
        z, there = self._present(z, mask)
        return torch.where(there, self.transform(there).inv_and_ladj(z)[0], torch.nan)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws without gradients, NaN where nothing is."""
        with torch.no_grad():
            return self.decode(self.base.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws with gradients, NaN where nothing is."""
        return self.decode(self.base.rsample(torch.Size(sample_shape)))

    def _encoded(self, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        x, there = self._present(value, mask)
        return *self.transform(there).call_and_ladj(x), there

    def _present(self, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        N = self.event_shape[0]
        coordinates.require_event(value, "value", N)
        there = torch.logical_and(self.mask, coordinates.there(mask, N, value.device))
        shape = torch.broadcast_shapes(value.shape, there.shape, self.base.batch_shape)
        return torch.where(there, value, 0.0).expand(shape), there.expand(torch.broadcast_shapes(there.shape, shape))
