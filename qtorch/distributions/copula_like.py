"""What a joint law asks of the copula it is given."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float64
from torch import Tensor
from torch.types import _size

from qtorch.distributions.copulas import Given


@runtime_checkable
class CopulaLike(Protocol):
    """A law of uniforms that speaks normal scores; one may refuse `marginal` and `condition`."""

    @property
    def event_shape(self) -> torch.Size:
        """`[N]`."""
        ...

    @property
    def batch_shape(self) -> torch.Size:
        """`[...]`."""
        ...

    def expand(self, batch_shape: _size) -> "CopulaLike":
        """The copula expanded to a batch shape."""
        ...

    def log_prob_of_scores(
        self, scores: Float64[Tensor, "... N"], mask: Bool[Tensor, "... N"] | None
    ) -> Float64[Tensor, "..."]:
        """Log density of the uniforms that are there, from normal scores; what stands elsewhere is not looked at."""
        ...

    def rsample_scores(self, sample_shape: _size) -> Float64[Tensor, "... N"]:
        """Normal scores of draws."""
        ...

    def marginal(self, index: Tensor) -> "CopulaLike":
        """The copula of the coordinates at some positions."""
        ...

    def condition(self, scores: Float64[Tensor, "... N"], known: Tensor) -> Given:
        """The other coordinates, given the scores of those at some positions."""
        ...
