"""What parametric heads share: an affine map of the hidden state, and the laws its numbers stand for."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from qtorch.heads.bounds import factor_of_volatility

Parameters = tuple[Tensor, ...]


class Parametric(nn.Module, ABC):
    """Maps hidden states to laws of returns in units of the window's scale, one for each horizon.

    The raw numbers are affine in the hidden state, `raw_of`, and `constrain` makes bounded parameters of them: what
    knows how sure a model is, such as a posterior of the affine map's weights, needs only the first, and works with
    every law.

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.
        size: raw numbers of a law.

    Attributes:
        names: of the tensors of `parameters_of`, in their order.
    """

    names: ClassVar[tuple[str, ...]]
    root_horizon: Tensor

    def __init__(self, in_features: int, horizons: Sequence[int], size: int) -> None:
        super().__init__()
        self.in_features, self.horizons, self.size = in_features, tuple(horizons), size
        self.project = nn.Linear(in_features, len(self.horizons) * size)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        root = torch.tensor(self.horizons, dtype=torch.float32).sqrt()
        self.register_buffer("root_horizon", root, persistent=False)

    @abstractmethod
    def constrain(self, raw: Float[Tensor, "*batch H size"]) -> Parameters:
        """The laws' parameters, each `[*batch, H, ...]`, for any raw numbers; a fresh head's are zeros."""

    @abstractmethod
    def distribution(self, *parameters: Tensor) -> Distribution:
        """The distribution of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""

    def raw_of(self, hidden: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch H size"]:
        """The affine map of the hidden state."""
        return self.project(hidden).float().unflatten(-1, (len(self.horizons), self.size))

    def parameters_of(self, hidden: Float[Tensor, "*batch D"]) -> Parameters:
        """Tensors of the laws' parameters, each `[*batch, H, ...]`."""
        return self.constrain(self.raw_of(hidden))

    def forward(self, hidden: Float[Tensor, "*batch D"]) -> Distribution:
        """The distribution of standardised returns, batch shape `[*batch, H]`."""
        return self.distribution(*self.parameters_of(hidden))

    def volatility(self, raw: Float[Tensor, "*batch H"]) -> Float[Tensor, "*batch H"]:
        """sqrt(h) times a factor between 1/8 and 8 for the horizon of h sessions; the factor is 1 at zero."""
        return self.root_horizon * factor_of_volatility(raw)
