"""A head of Johnson's SU for several horizons."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch import distributions
from qtorch.heads.bounds import location, up_to
from qtorch.heads.parametric import Parameters, Parametric


class JohnsonSU(Parametric):
    """Maps hidden states to Johnson's SU distributions of returns in units of the window's scale.

    Skew and tails between the normal's and the lognormal's, with every function a closed form of the normal's, so that
    it is the cheapest of the skewed heads. All moments exist.

    The law is that of sinh(Z / delta - r), moved and scaled to a mean and a standard deviation. Every parameter is
    bounded, so that no hidden state, however odd, gives an absurd forecast: the volatility of horizon h is sqrt(h)
    times a factor between 1/8 and 8, exactly; 1 / delta is between 0.1, as good as normal, and 1.2, and r between -1/2
    and 1/2; the mean is at most half a volatility from zero, so that the value at risk at 90 % or beyond, at least 0.66
    of a volatility below the mean, is always a loss. A fresh head is RiskMetrics with the kurtosis of Student's t of 6
    degrees of freedom: volatility sqrt(h), mean zero, no skew.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.

    References:
        Johnson (1949), as of `qtorch.distributions.JohnsonSU`.
    """

    names = ("gamma", "delta", "loc", "scale")

    def __init__(self, in_features: int, horizons: Sequence[int]) -> None:
        super().__init__(in_features, horizons, size=4)

    def constrain(self, raw: Float[Tensor, "*batch H 4"]) -> Parameters:
        """Tensors of gamma, delta, loc and scale, each `[*batch, H]`."""
        weight = 0.1 + 1.1 * torch.sigmoid(raw[..., 0] - 0.1)  # 1 / delta; .6225 at zero has a kurtosis of 6
        volatility, r = self.volatility(raw[..., 1]), up_to(0.5, raw[..., 3])
        # Of sinh(Z / delta - r) the mean is -sqrt(w) sinh r and the variance (w - 1) (w cosh 2r + 1) / 2.
        w, growth = torch.exp(weight**2), torch.expm1(weight**2)
        scale = volatility / torch.sqrt(0.5 * growth * (w * torch.cosh(2 * r) + 1))
        loc = location(raw[..., 2], volatility) + scale * torch.sqrt(w) * torch.sinh(r)
        return r / weight, 1 / weight, loc, scale

    def distribution(self, *parameters: Tensor) -> distributions.JohnsonSU:
        """The distribution of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        return distributions.JohnsonSU(*parameters)
