"""What every transform here does: value and log-derivative in one pass, both ways."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

Values = Float[Tensor, "..."]


class Bijection(Transform, ABC):
    """An invertible map whose passes give the log absolute determinant of the Jacobian (`ladj`) with the value.

    With `event_dim` 0 a map acts on each element and its ladj has the shape of the values; with `event_dim` 1 it acts
    on vectors `[..., D]` and its ladj has shape `[...]`. Arithmetic is in float32 at least.
    """

    bijective = True
    event_dim: int = 0

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        """The reals, or real vectors."""
        return constraints.real_vector if self.event_dim else constraints.real

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        """As the domain."""
        return self.domain

    @abstractmethod
    def call_and_ladj(self, x: Values) -> tuple[Values, Values]:
        """The value y(x) and log |dy/dx|."""

    @abstractmethod
    def inv_and_ladj(self, y: Values) -> tuple[Values, Values]:
        """The x with y(x) = y and log |dx/dy|."""

    def log_abs_det_jacobian(self, x: Values, y: Values) -> Values:
        """Log |dy/dx| at x."""
        return self.call_and_ladj(x)[1]

    def _call(self, x: Tensor) -> Tensor:
        return self.call_and_ladj(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inv_and_ladj(y)[0]


def promoted(x: Tensor) -> Tensor:
    """In float32 where it came in half precision, as from a network under autocast."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def soft_clip(x: Values, bound: float) -> Values:
    """X / (1 + |x| / bound): x near 0, never beyond the bound."""
    return x / (1 + x.abs() / bound)


def expand_first(x: Float[Tensor, "K ..."], shape: torch.Size) -> Float[Tensor, "K ..."]:
    """Broadcasts all dimensions but the first to a shape."""
    missing = len(shape) - x.ndim + 1
    return x.reshape(x.shape[0], *[1] * missing, *x.shape[1:]).expand(-1, *shape)
