"""A head that forecasts by a conditional spline flow over Student's t, which is a quantile spline."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch import distributions
from qtorch.distributions.checks import require
from qtorch.heads.bounds import degrees_of_freedom, location, within
from qtorch.heads.parametric import Parameters, Parametric

KNOTS = (-4.0, -2.25, -1.25, -0.6, 0.0, 0.6, 1.25, 2.25, 4.0)
_LEAST = -1.29  # Student's t has a tenth of its mass below -1.2958 at 60 degrees of freedom, and below less at fewer


class FlowHead(Parametric):
    """Maps hidden states to univariate flows of returns in units of the window's scale: X = c + s g(T).

    T is Student's t and g a monotone rational-quadratic spline through the origin, with straight tails, so that each
    tail has T's index and a scale of its own. It is the head of quantile splines: X's quantile function is a spline of
    T's, and no two quantiles cross. Density, distribution function and quantiles are closed forms in those of
    T; tail means are, but for Gauss-Legendre sums over the bins. See `qtorch.distributions.QuantileSpline`.

    Every parameter is bounded, so that no hidden state, however odd, gives an absurd forecast: T's degrees of freedom
    are between 2.1 and 60; s is such that the volatility of horizon h, were g the identity, is sqrt(h) times a factor
    between 1/8 and 8; the mean slope of g over each bin is between 1/2 and 2, and its slope at each knot too; c is at
    most half of s from zero, so that the value at risk at 90 % or beyond is always a loss. A fresh head is RiskMetrics
    with 6 degrees of freedom: g the identity, volatility sqrt(h), c zero.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.
        knots: of g, increasing; 0 and a knot between -1.29 and -1 are among them.

    Raises:
        ValueError: the knots do not increase, or one of those is not among them.

    References:
        Durkan, Bekasov, Murray and Papamakarios (2019), Neural spline flows, NeurIPS; for heavy tails from the base
        Jaini, Kobyzev, Yu and Brubaker (2020), Tails of Lipschitz triangular flows, ICML.
    """

    at: Tensor

    names = ("df", "values", "slopes")

    def __init__(self, in_features: int, horizons: Sequence[int], knots: Sequence[float] = KNOTS) -> None:
        rising = all(low < high for low, high in zip(knots, knots[1:], strict=False))
        require(rising, "knots", knots, "give increasing numbers")
        needed = 0 in knots and any(_LEAST <= knot < -1 for knot in knots)
        require(needed, "knots", knots, f"have 0 among them, and one of at least {_LEAST} below -1")
        super().__init__(in_features, horizons, size=2 + 2 * len(knots))
        self.knots = tuple(knots)
        self.register_buffer("at", torch.tensor(self.knots, dtype=torch.float32), persistent=False)

    def constrain(self, raw: Float[Tensor, "*batch H size"]) -> Parameters:
        """Tensors of df `[*batch, H]`, and of values and slopes at the knots `[*batch, H, knots]`."""
        J = len(self.knots)
        df = degrees_of_freedom(raw[..., 0])
        scale = (self.volatility(raw[..., 1]) * torch.sqrt((df - 2) / df)).unsqueeze(-1)
        loc = location(raw[..., 2:3], scale)
        rise = self.at.diff() * torch.exp(within(2.0, raw[..., 3 : 2 + J]))
        g = torch.cat((torch.zeros_like(loc), rise.cumsum(-1)), dim=-1)
        zero = self.knots.index(0.0)
        values = loc + scale * (g - g[..., zero : zero + 1])
        return df, values, scale * torch.exp(within(2.0, raw[..., 2 + J :]))

    def distribution(self, *parameters: Tensor) -> distributions.QuantileSpline:
        """The distribution of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        df, values, slopes = parameters
        return distributions.QuantileSpline(self.at, values, slopes, distributions.StudentT(df))
