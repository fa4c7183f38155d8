"""A skewed Student-t head for several horizons."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch import distributions

Parameters = tuple[Tensor, ...]


class SkewedStudentT(nn.Module):
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

    root_horizon: Tensor

    def __init__(self, in_features: int, horizons: Sequence[int]) -> None:
        super().__init__()
        self.in_features, self.horizons = in_features, tuple(horizons)
        self.project = nn.Linear(in_features, 4 * len(self.horizons))
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        root = torch.tensor(self.horizons, dtype=torch.float32).sqrt()
        self.register_buffer("root_horizon", root, persistent=False)

    def parameters_of(self, hidden: Float[Tensor, "*batch D"]) -> Parameters:
        """Tensors of df, loc, scale and skew, each `[*batch, H]`."""
        raw = self.project(hidden).float().unflatten(-1, (4, len(self.horizons)))
        df = 2.1 + 57.9 * torch.sigmoid(raw[..., 0, :] - 2.63)
        volatility = self.root_horizon * torch.exp(math.log(8) * torch.tanh(raw[..., 1, :] / math.log(8)))
        scale = volatility * torch.sqrt((df - 2) / df)
        loc = 0.5 * scale * torch.tanh(raw[..., 2, :])
        skew = torch.exp(math.log(1.5) * torch.tanh(raw[..., 3, :]))
        return df, loc, scale, skew

    def distribution(self, df: Tensor, loc: Tensor, scale: Tensor, skew: Tensor) -> distributions.SkewedStudentT:
        """The distribution of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        return distributions.SkewedStudentT(df, loc, scale, skew)

    def forward(self, hidden: Float[Tensor, "*batch D"]) -> distributions.SkewedStudentT:
        """The distribution of standardised returns, batch shape `[*batch, H]`."""
        return self.distribution(*self.parameters_of(hidden))
