"""A normal head for several horizons."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.heads.bounds import location
from qtorch.heads.parametric import Parameters, Parametric


class Normal(Parametric):
    """Maps hidden states to normal distributions of returns in units of the window's scale.

    What is known of a forecast in closed form is so for the normal, and its tails are too thin for returns: a yardstick
    for the other heads. The volatility of horizon h is sqrt(h) times a factor between 1/8 and 8 and the mean at most
    half a volatility from zero, whatever the hidden state, so that the value at risk at 90 % or beyond is always a
    loss. A fresh head is RiskMetrics: volatility sqrt(h), mean zero.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.

    References:
        J.P. Morgan and Reuters (1996), RiskMetrics - technical document, 4th edition, chapter 5.

    Example:
        >>> law = Normal(8, [1, 4])(torch.randn(3, 8))
        >>> law.batch_shape, law.stddev[0]
        (torch.Size([3, 2]), tensor([1., 2.], grad_fn=<SelectBackward0>))
    """

    names = ("mean", "volatility")

    def __init__(self, in_features: int, horizons: Sequence[int]) -> None:
        super().__init__(in_features, horizons, size=2)

    def constrain(self, raw: Float[Tensor, "*batch H 2"]) -> Parameters:
        """Tensors of mean and volatility, each `[*batch, H]`."""
        volatility = self.volatility(raw[..., 0])
        return location(raw[..., 1], volatility), volatility

    def distribution(self, *parameters: Tensor) -> torch.distributions.Normal:
        """The distribution of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        mean, volatility = parameters
        return torch.distributions.Normal(mean, volatility, validate_args=False)
