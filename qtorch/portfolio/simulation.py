"""What a portfolio earns session by session, net of costs, as its weights drift between rebalances."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.errors import ArgumentError
from qtorch.portfolio.costs import Costs
from qtorch.portfolio.operators import operator


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulated portfolio; everything is differentiable.

    Attributes:
        returns: net of costs and financing, in decimals.
        weights: held over each session's return, after trading.
        turnover: sum |trade| of each session, two-way.
        costs: of trading, in units of the equity before it.
        final: weights after the last session's drift, the next one's holdings.
    """

    returns: Float[Tensor, "*batch T"]
    weights: Float[Tensor, "*batch T N"]
    turnover: Float[Tensor, "*batch T"]
    costs: Float[Tensor, "*batch T"]
    final: Float[Tensor, "*batch N"]


def simulate(
    targets: Float[Tensor, "*batch T N"],
    returns: Float[Tensor, "*batch T N"],
    mask: Bool[Tensor, "*#batch T N"] | None = None,
    *,
    costs: Costs | None = None,
    tradable: Bool[Tensor, "*#batch T N"] | None = None,
    rebalance: Bool[Tensor, " T"] | None = None,
    start: Float[Tensor, "*#batch N"] | None = None,
    volatility: Float[Tensor, "*#batch T N"] | None = None,
    volume: Float[Tensor, "*#batch T N"] | None = None,
) -> Simulation:
    """Trades to the targets before each session's returns, earns them, and lets the weights drift.

    With holdings h, targets w and returns r of a session, and positions p that are w where there is trading and h
    elsewhere: the portfolio earns R = p'r - costs(p - h) + interest, and the next holdings are p (1 + r) / (1 + R).
    Costs are paid from cash, so that a portfolio that is fully invested borrows them until the next trade.

    Args:
        targets: weights decided before the session's return, in units of the equity; what they lack of 1 is cash.
        returns: simple returns over the session; NaN where masked is fine.
        mask: True where there is a return. Elsewhere (a closed exchange) it is 0.
        costs: rates; none by default.
        tradable: where a position can change before the session's return; `mask` by default. So a position in a
            delisted stock stays until this is True for it, when it is sold at its last price.
        rebalance: sessions on which there is trading; all by default.
        start: holdings before the first session; none by default, so that the first purchase is paid for.
        volatility: of each asset's returns, a session; needed for impact.
        volume: average daily value traded in units of the portfolio's equity; needed for impact.

    Raises:
        ValueError: the portfolio loses all it has, or impact lacks what it needs, such as the volume of an asset that
            can be traded.

    Example:
        >>> half = torch.full((3, 2), 0.5)
        >>> account = simulate(half, torch.tensor([[0.1, 0.0], [0.0, 0.0], [0.0, 0.1]]))
        >>> account.turnover
        tensor([1.0000, 0.0476, 0.0000])
    """
    costs = costs or Costs()
    if costs.impact and (volatility is None or volume is None):
        raise ArgumentError(f"impact={costs.impact} needs the assets' volatility and their volume.")
    every = torch.ones((), dtype=torch.bool, device=returns.device)
    there = (every if mask is None else mask).expand(returns.shape)
    open_ = there if tradable is None else tradable.expand(returns.shape)
    if rebalance is not None:
        open_ = torch.logical_and(open_, rebalance.unsqueeze(-1))
    dtype = torch.promote_types(torch.promote_types(targets.dtype, returns.dtype), torch.float32)
    w, r = torch.where(open_, targets, 0.0).to(dtype), torch.where(there, returns, 0.0).to(dtype)
    per_trade = _impact(costs, volatility, volume, open_, dtype)
    h = torch.zeros_like(w[..., 0, :]) if start is None else start.to(dtype).expand(w[..., 0, :].shape)
    columns: list[tuple[Tensor, ...]] = []
    for t in range(w.shape[-2]):
        p = torch.where(open_[..., t, :], w[..., t, :], h)
        size = (p - h).abs()
        turnover = size.sum(-1)
        paid = costs.proportional * turnover
        if per_trade is not None:
            paid = paid + (per_trade[..., t, :] * size.pow(1.5)).sum(-1)
        spare = 1 - paid - p.abs().sum(-1)
        earned = (
            (p * r[..., t, :]).sum(-1) - paid + costs.cash * spare.clamp(min=0) + costs.financing * spare.clamp(max=0)
        )
        growth = 1 + earned
        growth = growth + _solvent(growth.detach(), t)
        h = p * (1 + r[..., t, :]) / growth.unsqueeze(-1)
        columns.append((earned, p, turnover, paid))
    net, held, traded, spent = zip(*columns, strict=True)
    return Simulation(torch.stack(net, -1), torch.stack(held, -2), torch.stack(traded, -1), torch.stack(spent, -1), h)


def _impact(
    costs: Costs, volatility: Tensor | None, volume: Tensor | None, open_: Tensor, dtype: torch.dtype
) -> Tensor | None:
    """What multiplies |trade|^1.5."""
    if not costs.impact or volatility is None or volume is None:
        return None
    sigma, adv = torch.where(open_, volatility, 0.0).to(dtype), torch.where(open_, volume, 1.0).to(dtype)
    return costs.impact * sigma * (adv + _liquid(adv.detach(), sigma.detach())).rsqrt()


def _check_liquid(adv: Tensor, sigma: Tensor) -> Tensor:
    for what, x, wrong in (("volume", adv, ~(adv > 0)), ("volatility", sigma, ~(sigma >= 0))):
        if wrong.any():
            place = wrong.nonzero()[0].tolist()
            raise ArgumentError(
                f"session {place[-2]}, asset {place[-1]}: its {what} is {x[tuple(place)].item():g}, so that no "
                "impact of a trade is known: give a number above 0, or tradable=False where it can't be traded."
            )
    return torch.zeros_like(adv)


_liquid = operator(
    "simulation_liquid", "(Tensor adv, Tensor sigma) -> Tensor", _check_liquid, lambda adv, sigma: adv.clone()
)


def _check(growth: Tensor, t: int) -> Tensor:
    if not (growth > 0).all():
        raise ArgumentError(
            f"session {t}: a portfolio's equity grows by a factor of {growth.min().item():g}: it has lost all it has, "
            "or a return that is not masked is no number; lower the leverage or mask the return."
        )
    return torch.zeros_like(growth)


_solvent = operator("simulation_solvent", "(Tensor growth, int t) -> Tensor", _check, lambda growth, t: growth.clone())
