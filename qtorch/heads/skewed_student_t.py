"""A skewed Student-t head for several horizons."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch import distributions
from qtorch.heads.bounds import degrees_of_freedom, location
from qtorch.heads.parametric import Parameters, Parametric


class SkewedStudentT(Parametric):
    """Maps hidden states to two-piece skewed Student-t distributions of returns in units of the window's scale.

    Every parameter is bounded, so that no hidden state, however odd, gives an absurd forecast: the
    volatility of horizon h is sqrt(h) times a factor between 1/8 and 8 (before the skew), the degrees of freedom are
    between 2.1 and 60, the skew is between 2/3 and 3/2, and the mode is at most half a scale from zero, so that the
    value at risk at 90 % or beyond is always a loss. A fresh head is RiskMetrics with 6 degrees of freedom: volatility
    sqrt(h), mode zero, no skew.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.

    References:
        Fernandez and Steel (1998), as of `qtorch.distributions.SkewedStudentT`.
    """

    names = ("df", "loc", "scale", "skew")

    def __init__(self, in_features: int, horizons: Sequence[int]) -> None:
        super().__init__(in_features, horizons, size=4)

    def constrain(self, raw: Float[Tensor, "*batch H 4"]) -> Parameters:
        """Tensors of df, loc, scale and skew, each `[*batch, H]`."""
        df = degrees_of_freedom(raw[..., 0])
        scale = self.volatility(raw[..., 1]) * torch.sqrt((df - 2) / df)
        skew = torch.exp(math.log(1.5) * torch.tanh(raw[..., 3]))
        return df, location(raw[..., 2], scale), scale, skew

    def distribution(self, *parameters: Tensor) -> distributions.SkewedStudentT:
        """The distribution of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        return distributions.SkewedStudentT(*parameters)
