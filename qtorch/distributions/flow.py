"""The law of an invertible map of simple draws."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from qtorch.distributions.transforms import Bijection
from qtorch.errors import ArgumentError


class FlowDistribution(Distribution):
    """The law of x = f^-1(z), z from a base law on R^D.

    log p(x) = log p_z(f(x)) + log |det df/dx|.

    Args:
        base: of batch shape `[...]` and event shape `[D]`.
        transform: f, from data to the base; whatever it depends on has the base's batch shape.
    """

    arg_constraints = {}
    support = constraints.real_vector

    def __init__(self, base: Distribution, transform: Bijection) -> None:
        self.base, self.transform = base, transform
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base."""
        return self.base.has_rsample

    def log_prob(self, value: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """Log density at `value`, which broadcasts against the batch shape.

        Raises:
            ValueError: the last dimension is not D.
        """
        z, ladj = self.transform.call_and_ladj(self._rows(value))
        return self.base.log_prob(z) + ladj

    def encode(self, value: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """The z of an x.

        Raises:
            ValueError: the last dimension is not D.
        """
        return self.transform.call_and_ladj(self._rows(value))[0]

    def decode(self, z: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """The x of a z.

        Raises:
            ValueError: the last dimension is not D.
        """
        return self.transform.inv_and_ladj(self._rows(z))[0]

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws without gradients."""
        with torch.no_grad():
            return self.decode(self.base.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """Draws with gradients."""
        return self.decode(self.base.rsample(torch.Size(sample_shape)))

    def _rows(self, value: Tensor) -> Tensor:
        if value.shape[-1:] != self.event_shape:
            raise ArgumentError(
                f"A value of shape {tuple(value.shape)} must end in the law's D = {self.event_shape[0]} coordinates."
            )
        return value.expand(*torch.broadcast_shapes(value.shape[:-1], self.batch_shape), -1)
