"""A normal inverse Gaussian head for several horizons."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch import distributions
from qtorch.heads.bounds import location, up_to, within
from qtorch.heads.parametric import Parameters, Parametric


class NormalInverseGaussian(Parametric):
    """Maps hidden states to normal inverse Gaussian distributions of returns in units of the window's scale.

    Skew and semi-heavy tails: exponential in the end, so that all moments exist. Its quantiles are found by Newton's
    method, so that objectives of quantiles and tail means take longer to train than with other heads.

    Every parameter is bounded, so that no hidden state, however odd, gives an absurd forecast: the volatility of
    horizon h is sqrt(h) times a factor between 1/8 and 8, exactly; the steepness a is between 1/20, where the excess
    kurtosis is 60 and more, and 20, as good as normal; b / a is between -1/2 and 1/2; the mean is at most 0.4 of a
    volatility from zero, so that the value at risk at 90 % or beyond, at least 0.46 of a volatility below the mean, is
    always a loss. A fresh head is RiskMetrics with the kurtosis of Student's t of 6 degrees of freedom: volatility
    sqrt(h), mean zero, a = 1, no skew.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.

    References:
        Barndorff-Nielsen (1997), as of `qtorch.distributions.NormalInverseGaussian`.
    """

    names = ("a", "b", "loc", "scale")

    def __init__(self, in_features: int, horizons: Sequence[int]) -> None:
        super().__init__(in_features, horizons, size=4)

    def constrain(self, raw: Float[Tensor, "*batch H 4"]) -> Parameters:
        """Tensors of a, b, loc and scale, each `[*batch, H]`."""
        a, volatility = torch.exp(within(20.0, raw[..., 0])), self.volatility(raw[..., 1])
        skew = up_to(0.5, raw[..., 3])  # b / a
        root = torch.sqrt(1 - skew**2)  # gamma / a
        scale = volatility * torch.sqrt(a * root**3)
        loc = location(raw[..., 2], 0.8 * volatility) - scale * skew / root
        return a, a * skew, loc, scale

    def distribution(self, *parameters: Tensor) -> distributions.NormalInverseGaussian:
        """The distribution of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        return distributions.NormalInverseGaussian(*parameters)
