"""What weights earn, on realised returns or on a forecast's scenarios."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def portfolio_returns(
    weights: Float[Tensor, "*batch N"],
    returns: Float[Tensor, "*batch N"],
    mask: Bool[Tensor, "*#batch N"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Sum of weight times return over the assets that have one, before costs.

    Args:
        weights: in units of the equity.
        returns: simple returns; NaN where masked is fine.
        mask: True where there is a return; elsewhere it counts as 0.
    """
    dtype = torch.promote_types(torch.promote_types(weights.dtype, returns.dtype), torch.float32)
    w, r = weights.to(dtype), returns.to(dtype)
    if mask is not None:
        w, r = torch.where(mask, w, 0.0), torch.where(mask, r, 0.0)
    return (w * r).sum(-1)


def scenario_returns(
    weights: Float[Tensor, "B N"], scenarios: Float[Tensor, "S B N"], mask: Bool[Tensor, "B N"] | None = None
) -> Float[Tensor, "B S"]:
    """Each portfolio's return in each scenario of a forecast, on which the objectives are used as on a window.

    The draws of a Forecaster's distribution (its `rsample`, where gradients are to reach the forecast as well) make the
    decision's objective an expectation under the forecast: `cvar(scenario_returns(w, scenarios), 0.95)` is that of the
    forecast portfolio.

    Args:
        weights: in units of the equity.
        scenarios: simple returns drawn from the forecast; NaN where masked is fine.
        mask: True for assets of the universe.

    Example:
        >>> from qtorch.portfolio import sharpe
        >>> law = torch.distributions.Normal(torch.full((1, 3), 0.001), 0.01)
        >>> draws = law.rsample(torch.Size([4000]))
        >>> sharpe(scenario_returns(torch.full((1, 3), 1 / 3), draws)).shape
        torch.Size([1])
    """
    shape = scenarios.shape
    each = portfolio_returns(weights.expand(shape), scenarios, None if mask is None else mask.expand(shape))
    return each.movedim(0, -1)
