"""A head of Hansen's skewed Student-t for several horizons."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch import distributions
from qtorch.heads.bounds import degrees_of_freedom, location, up_to
from qtorch.heads.parametric import Parameters, Parametric

_MOST_SKEW = 5 / 13  # the sides are as 2/3 to 3/2, as far as a SkewedStudentT head's


class HansenSkewedT(Parametric):
    """Maps hidden states to Hansen's skewed Student-t distributions of returns in units of the window's scale.

    The laws are those of a `SkewedStudentT` head, by mean and standard deviation in place of mode and scale: tails and
    skew change neither, so that an error of one of them is no error of the others.

    Every parameter is bounded, so that no hidden state, however odd, gives an absurd forecast: the volatility of
    horizon h is sqrt(h) times a factor between 1/8 and 8, exactly; the degrees of freedom are between 2.1 and 60 and
    lambda between -5/13 and 5/13; the mean is at most half of the scale of the Student's t of that volatility from
    zero, so that the value at risk at 90 % or beyond, at least 1.19 of that scale below the mean, is always a loss. A
    fresh head is RiskMetrics with 6 degrees of freedom: volatility sqrt(h), mean zero, no skew.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.

    References:
        Hansen (1994), as of `qtorch.distributions.HansenSkewedT`.
    """

    names = ("df", "skew", "loc", "scale")

    def __init__(self, in_features: int, horizons: Sequence[int]) -> None:
        super().__init__(in_features, horizons, size=4)

    def constrain(self, raw: Float[Tensor, "*batch H 4"]) -> Parameters:
        """Tensors of df, skew, loc and scale, each `[*batch, H]`."""
        df, volatility = degrees_of_freedom(raw[..., 0]), self.volatility(raw[..., 1])
        loc = location(raw[..., 2], volatility * torch.sqrt((df - 2) / df))
        return df, up_to(_MOST_SKEW, raw[..., 3]), loc, volatility

    def distribution(self, *parameters: Tensor) -> distributions.HansenSkewedT:
        """The distribution of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        return distributions.HansenSkewedT(*parameters)
