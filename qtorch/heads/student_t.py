"""A Student-t head for several horizons."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch import distributions
from qtorch.heads.bounds import degrees_of_freedom, location
from qtorch.heads.parametric import Parameters, Parametric


class StudentT(Parametric):
    """Maps hidden states to Student-t distributions of returns in units of the window's scale.

    Every parameter is bounded, so that no hidden state, however odd, gives an absurd forecast: the volatility of
    horizon h is sqrt(h) times a factor between 1/8 and 8, the degrees of freedom are between 2.1 and 60, and the median
    is at most half a scale from zero, so that the value at risk at 90 % or beyond is always a loss. A fresh head is
    RiskMetrics with 6 degrees of freedom: volatility sqrt(h), median zero. `SkewedStudentT` has a skew beside.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.

    References:
        Bollerslev (1987), A conditionally heteroskedastic time series model for speculative prices and rates of return,
        Review of Economics and Statistics 69.
    """

    names = ("df", "loc", "scale")

    def __init__(self, in_features: int, horizons: Sequence[int]) -> None:
        super().__init__(in_features, horizons, size=3)

    def constrain(self, raw: Float[Tensor, "*batch H 3"]) -> Parameters:
        """Tensors of df, loc and scale, each `[*batch, H]`."""
        df = degrees_of_freedom(raw[..., 0])
        scale = self.volatility(raw[..., 1]) * torch.sqrt((df - 2) / df)
        return df, location(raw[..., 2], scale), scale

    def distribution(self, *parameters: Tensor) -> distributions.StudentT:
        """The distribution of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        return distributions.StudentT(*parameters)
