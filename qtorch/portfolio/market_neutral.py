"""Long and short weights that cancel."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qtorch.portfolio.constraints import Constraints
from qtorch.portfolio.projection import project


class MarketNeutral(nn.Module):
    """Scores to the nearest weights with sum w = 0 and sum |w| <= leverage.

    Args:
        leverage: most of the gross exposure; 2 is a full unit long and one short.
        cap: most of each |w|; None for none.
        turnover: as of `Constraints`.
        caps: as of `Constraints`; ``{"sector": GroupCap(0.05, -0.05)}`` keeps sectors nearly neutral.

    Example:
        >>> import torch
        >>> MarketNeutral(leverage=1.0)(torch.tensor([[2.0, 0.1, -0.9]]), torch.tensor([[True, True, True]]))
        tensor([[ 0.5000,  0.0000, -0.5000]])
    """

    def __init__(
        self,
        leverage: float = 2.0,
        cap: float | None = None,
        turnover: float | None = None,
        caps: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        lower = None if cap is None else -cap
        self._constraints = Constraints(0.0, lower, cap, leverage, turnover, caps or {})
        self.leverage, self.cap, self.turnover = leverage, cap, turnover
        self.caps = self._constraints.plain()["caps"]

    def forward(
        self,
        scores: Float[Tensor, "*batch N"],
        mask: Bool[Tensor, "*#batch N"],
        *,
        holdings: Float[Tensor, "*#batch N"] | None = None,
        tradable: Bool[Tensor, "*#batch N"] | None = None,
        groups: Mapping[str, Int[Tensor, "..."]] | None = None,
    ) -> Float[Tensor, "*batch N"]:
        """Weights; the arguments and errors are those of `project`."""
        return project(scores, self._constraints, mask, holdings=holdings, tradable=tradable, groups=groups)
