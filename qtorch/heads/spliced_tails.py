"""A head of Student's t with generalised Pareto tails for several horizons."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch import distributions
from qtorch.distributions.checks import require
from qtorch.heads.bounds import degrees_of_freedom, location
from qtorch.heads.parametric import Parameters, Parametric


class SplicedTails(Parametric):
    """Maps hidden states to Student-t bodies with generalised Pareto tails, in units of the window's scale.

    Each tail has an index of its own, which the body's shape does not bind: what is learned of small moves says nothing
    of large ones but where they begin. The density is continuous; beyond its quantiles at `mass` from each end the law
    is Pareto's. See `qtorch.distributions.SplicedTails`.

    Every parameter is bounded, so that no hidden state, however odd, gives an absurd forecast: the volatility of the
    body for horizon h is sqrt(h) times a factor between 1/8 and 8 times that of a fresh head; its degrees of freedom
    are between 2.1 and 60; each tail has the index of Student's t of 2.1 to 60 degrees of freedom; the median is at
    most half of the body's scale from zero, so that the value at risk at 90 % or beyond is always a loss. A fresh head
    is RiskMetrics with the tail index of 6 degrees of freedom, as its body: volatility sqrt(h), median zero.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.
        mass: of each tail.

    Raises:
        ValueError: the mass is not between 0 and 0.1.

    References:
        Carreau and Bengio (2009), as of `qtorch.distributions.SplicedTails`.

    Example:
        >>> law = SplicedTails(8, [1, 10], mass=0.1)(torch.randn(5, 8))
        >>> bool((law.icdf(torch.tensor(0.001)) < law.body.icdf(torch.tensor(0.001))).all())  # heavier than its body
        True
    """

    names = ("df", "loc", "scale", "lower", "upper")

    def __init__(self, in_features: int, horizons: Sequence[int], mass: float = 0.05) -> None:
        require(0 < mass <= 0.1, "mass", mass, "give the share of a tail, at most 0.1")
        super().__init__(in_features, horizons, size=5)
        self.mass, self.unit = mass, 1.0
        fresh = self.distribution(*self.constrain(torch.zeros(len(self.horizons), self.size)))
        self.unit = float(self.root_horizon[0] / fresh.stddev[0])

    def constrain(self, raw: Float[Tensor, "*batch H 5"]) -> Parameters:
        """Tensors of the body's df, loc and scale and of both tails' concentrations, each `[*batch, H]`."""
        df = degrees_of_freedom(raw[..., 0])
        scale = self.unit * self.volatility(raw[..., 1]) * torch.sqrt((df - 2) / df)
        lower, upper = 1 / degrees_of_freedom(raw[..., 3]), 1 / degrees_of_freedom(raw[..., 4])
        return df, location(raw[..., 2], scale), scale, lower, upper

    def distribution(self, *parameters: Tensor) -> distributions.SplicedTails:
        """The distribution of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        df, loc, scale, lower, upper = parameters
        body = distributions.StudentT(df, loc, scale)
        return distributions.SplicedTails(body, self.mass, lower, self.mass, upper)
