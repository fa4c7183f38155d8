"""One head for every draw of a hidden state."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions import Posterior
from qtorch.heads.drawn_weights import equally_likely


class EachDraw(nn.Module):
    """Maps K hidden states to the mixture of the laws that one head gives each of them, with equal weights.

    For encoders that give several hidden states a place, such as `qtorch.models.MonteCarloDropout`. The mixture is a
    `qtorch.distributions.Posterior`, by which a forecast knows how sure its model is.

    Args:
        head: a univariate head, such as `SkewedStudentT`.

    Example:
        >>> import torch
        >>> from qtorch.heads import SkewedStudentT
        >>> EachDraw(SkewedStudentT(8, [1, 5]))(torch.zeros(3, 20, 8)).batch_shape
        torch.Size([3, 2])
    """

    head: Any

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    @property
    def in_features(self) -> int:
        """Hidden width `D`."""
        return self.head.in_features

    @property
    def horizons(self) -> tuple[int, ...]:
        """In sessions."""
        return self.head.horizons

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tensors of `parameters_of`, in their order."""
        return self.head.names

    def parameters_of(self, hidden: Float[Tensor, "*batch K D"]) -> tuple[Tensor, ...]:
        """Tensors of the laws' parameters, each `[*batch, H, K, ...]`."""
        axis = hidden.ndim - 2
        return tuple(value.transpose(axis, axis + 1) for value in self.head.parameters_of(hidden))

    def distribution(self, *parameters: Tensor) -> Posterior:
        """The mixture of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        return equally_likely(self.head.distribution(*parameters), parameters[0])

    def forward(self, hidden: Float[Tensor, "*batch K D"]) -> Posterior:
        """The mixture of the draws' laws of standardised returns, batch shape `[*batch, H]`."""
        return self.distribution(*self.parameters_of(hidden))
