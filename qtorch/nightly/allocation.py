"""Tonight's target weights and the trades that lead to them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from qtorch.backtest import Refits, around_closed, violations
from qtorch.backtest.rebalancing import checked_weights
from qtorch.data import DataError, Panel, State
from qtorch.data.errors import listing
from qtorch.errors import ArgumentError
from qtorch.nightly.config import AllocationConfig
from qtorch.nightly.forecast_history import History
from qtorch.nightly.outcome import Refused
from qtorch.nn import construct
from qtorch.portfolio import Constraints, numbered, simulate
from qtorch.risk import portfolio_risk

_ROUNDING = 1e-12  # weights that differ by less are the same
_KEPT = 1e-9  # by which weights may miss a constraint: both come from sums of rounded numbers


@dataclass(frozen=True, eq=False)
class Allocation:
    """What is held, what should be, and what lies between.

    Attributes:
        held: weights before the trades.
        target: weights after them, in units of the same equity.
        table: by asset: state, current_weight, target_weight, trade_weight, trade_value (NaN where the equity is not
            known), and in `reason` why it is not traded, or is sold for good.
        equity: in the positions' currency; None where it is not known.
        excess: over each constraint, by its name.
        cost: of the trades, in units of the equity.
        interest: on the cash that is left, or paid for what is borrowed, for a session.
    """

    held: Float64[Tensor, " N"]
    target: Float64[Tensor, " N"]
    table: pd.DataFrame
    equity: float | None
    excess: dict[str, float]
    cost: float
    interest: float

    @property
    def traded(self) -> set[str]:
        """The assets that are held before or after the trades."""
        held = self.table[(self.table["current_weight"] != 0) | (self.table["target_weight"] != 0)]
        return set(held["asset"])


def allocate(
    config: AllocationConfig,
    panel: Panel,
    states: pd.DataFrame,
    exposures: pd.Series,
    unit: str,
    allow: Iterable[str] = (),
) -> Allocation:
    """Asks the allocator, and moves its answer to the nearest weights that keep to the constraints.

    Assets without a price tonight stay at their holdings. What the night does not forecast is outside the universe: it
    is sold where it can be.

    Args:
        config: allocator, constraints and costs.
        panel: up to tonight.
        states: tonight's, as of `qtorch.nightly.gates.asset_states`.
        exposures: the positions, by asset.
        unit: theirs, "weight" or "market_value".
        allow: packages beside qtorch whose allocators may be named.

    Raises:
        DataError: the positions' equity is not positive, an asset lacks its label or is not in the data, or the
            allocator cannot decide.
        Refused: no weights keep to the constraints.
        ValueError: what is named is no allocator.
    """
    weights, equity = _weights(config, exposures, unit)
    by_column = [weights.get(asset, 0.0) for asset in panel.assets]
    held = torch.tensor(by_column, dtype=torch.float64, device=panel.mask.device)
    universe = torch.tensor(states["status"].isin(["ok", "stale"]).to_list(), device=held.device)
    limits, groups = config.limits, _groups(config, panel, states)
    asked = _ask(config, panel, held, allow)
    try:
        target = around_closed(asked, universe, panel, held, limits, groups=groups)
    except ValueError as error:
        numbers = [f"group {n} of {name} is {x}" for name in groups for n, x in enumerate(config.labels(name))]
        raise Refused(
            "allocation: no weights keep to allocation.constraints around tonight's holdings and closed markets: "
            f"{error}{f' ({listing(numbers, most=20)})' if numbers else ''}"
        ) from error
    target = _with_fewer_trades(target, asked, universe, panel, held, limits, groups, config.minimum_trade)
    excess = _excess(target, held, limits, universe & panel.mask[-1], groups)
    ledger = simulate(target[None], torch.zeros_like(target)[None], costs=config.costs, start=held)
    return Allocation(
        held,
        target,
        _table(panel, states, held, target, universe, equity),
        equity,
        excess,
        ledger.costs.item(),
        (ledger.returns + ledger.costs).item(),
    )


def allocation_facts(allocation: Allocation, history: History, panel: Panel) -> dict[str, Any]:
    """What the manifest and the report tell of the targets.

    Args:
        allocation: of the night.
        history: forecasts of what is held before or after at least, whose joint scenarios of the first horizon measure
            the portfolio.
        panel: whose assets the weights are of.

    Returns:
        one_way_turnover (half of sum |trade|), trades (how many), expected_cost, interest (a session's), gross, net,
        largest_weight and its largest_asset, all in units of the equity; equity, in the positions' currency or None;
        violations: by constraint, the excess; risk: by before and after, by level, value_at_risk and
        expected_shortfall in units of the equity; without_forecast: assets that are held, but not in them.
    """
    trade, size = allocation.target - allocation.held, allocation.target.abs()
    place = {asset: n for n, asset in enumerate(panel.assets)}
    column = [place[asset] for asset in history.panel.assets]
    there = history.alone.mask[0]
    scenarios = torch.where(there, history.scenarios(0), 0.0).flatten(0, 1)
    risk: dict[str, dict[str, dict[str, float]]] = {}
    for when, weights in (("before", allocation.held), ("after", allocation.target)):
        measured = {
            level: portfolio_risk(scenarios, torch.where(there, weights[column], 0.0), level)
            for level in history.config.risk.levels
        }
        risk[when] = {
            str(level): {
                "value_at_risk": r.value_at_risk.item(),
                "expected_shortfall": r.expected_shortfall.item(),
            }
            for level, r in measured.items()
        }
    forecast = torch.zeros_like(allocation.held, dtype=torch.bool)
    forecast[column] = there
    missing = ~forecast & ((allocation.held != 0) | (allocation.target != 0))
    return {
        "equity": allocation.equity,
        "trades": int((trade != 0).sum()),
        "one_way_turnover": trade.abs().sum().item() / 2,
        "expected_cost": allocation.cost,
        "interest": allocation.interest,
        "gross": size.sum().item(),
        "net": allocation.target.sum().item(),
        "largest_weight": size.max().item(),
        "largest_asset": panel.assets[int(size.argmax())],
        "violations": allocation.excess,
        "risk": risk,
        "without_forecast": [panel.assets[i] for i in missing.nonzero().squeeze(-1).tolist()],
    }


def _weights(config: AllocationConfig, exposures: pd.Series, unit: str) -> tuple[pd.Series, float | None]:
    """What is held in units of the equity, and the equity where it is known."""
    if unit == "weight":
        return exposures, config.equity
    equity = float(exposures.sum()) if config.equity is None else config.equity
    if not equity > 0:
        raise DataError(
            f"the positions' market values add up to {equity:g}, which cannot be the equity that weights are made of: "
            "give allocation.equity, the portfolio's value with its cash."
        )
    return exposures / equity, equity


def _groups(config: AllocationConfig, panel: Panel, states: pd.DataFrame) -> dict[str, Int64[Tensor, " N"]]:
    """Labels by number, -1 for none, of each partition that is capped.

    Raises:
        DataError: an asset that may be held has none, or one that is not in the data has.
    """
    due = states.index[states["status"] != "retired"]
    groups = {}
    for name in config.limits.caps:
        given = config.groups[name]
        if unknown := [asset for asset in given if asset not in panel.assets]:
            raise DataError(f"allocation.groups.{name}: not in the data: {listing(unknown)}. Remove them.")
        if missing := [asset for asset in due if asset not in given]:
            raise DataError(f"allocation.groups.{name}: no label for {listing(missing)}. Give one, or null for none.")
        groups[name] = dict.fromkeys(panel.assets) | dict(given)
    return {name: labels.to(panel.mask.device) for name, labels in numbered(groups, panel.assets).items()}


def _ask(
    config: AllocationConfig, panel: Panel, held: Float64[Tensor, " N"], allow: Iterable[str]
) -> Float64[Tensor, " N"]:
    allocator = construct(config.allocator, allow=allow)
    if not callable(allocator):
        raise ArgumentError(
            f"allocation.allocator {config.allocator['class_path']!r} makes a {type(allocator).__name__}, which is not "
            "called as allocate(panel, row, holdings): name one such as qtorch.backtest.InverseVolatility."
        )
    row = len(panel.dates) - 1
    if isinstance(allocator, Refits):
        allocator.refit(panel, row)
    return checked_weights(allocator(panel, row, held.clone()), panel)


def _with_fewer_trades(
    target: Float64[Tensor, " N"],
    asked: Float64[Tensor, " N"],
    universe: Bool[Tensor, " N"],
    panel: Panel,
    held: Float64[Tensor, " N"],
    limits: Constraints,
    groups: dict[str, Int64[Tensor, " N"]],
    minimum: float,
) -> Float64[Tensor, " N"]:
    """Weights near the target, with fewer trades below the minimum.

    While there are some, the smaller half of them is left out and the others are chosen anew, as long as that keeps to
    the limits; a holding outside its bounds is traded in any case.
    """
    target = _without_rounding(target, held)
    movable = universe & panel.mask[-1]
    if limits.lower is not None:
        movable = movable & (held >= limits.lower)
    if limits.upper is not None:
        movable = movable & (held <= limits.upper)
    untouched = torch.zeros_like(universe)
    while True:
        size = (target - held).abs()
        small = movable & ~untouched & (size > 0) & (size < minimum)
        if not small.any():
            return target
        order = torch.where(small, size, torch.inf).argsort(stable=True)
        more = untouched.clone()
        more[order[: (int(small.sum()) + 1) // 2]] = True
        try:
            fewer = around_closed(asked, universe, panel, held, limits, groups=groups, untouched=more)
        except ValueError:  # the limits come before the minimum
            return target
        if max(_excess(fewer, held, limits, universe & panel.mask[-1], groups).values(), default=0.0) > 0:
            return target
        target, untouched = _without_rounding(fewer, held), more


def _without_rounding(target: Float64[Tensor, " N"], held: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
    return torch.where((target - held).abs() <= _ROUNDING, held, target)


def _excess(
    target: Float64[Tensor, " N"],
    held: Float64[Tensor, " N"],
    limits: Constraints,
    free: Bool[Tensor, " N"],
    groups: dict[str, Int64[Tensor, " N"]],
) -> dict[str, float]:
    found = violations(target[None], held[None], limits, free[None], groups)
    return {name: value if (value := excess.item()) > _KEPT else 0.0 for name, excess in found.items()}


def _table(
    panel: Panel,
    states: pd.DataFrame,
    held: Float64[Tensor, " N"],
    target: Float64[Tensor, " N"],
    universe: Bool[Tensor, " N"],
    equity: float | None,
) -> pd.DataFrame:
    """One row an asset, without those that left the universe and are not held."""
    trade = target - held
    table = states[["state"]].reset_index().astype({"asset": "str", "state": "str"})
    table["current_weight"], table["target_weight"] = held.cpu().numpy(), target.cpu().numpy()
    table["trade_weight"] = trade.cpu().numpy()
    table["trade_value"] = table["trade_weight"] * (float("nan") if equity is None else equity)
    columns = (universe.tolist(), states["state"], states["reason"], held.tolist(), trade.tolist())
    table["reason"] = [_reason(*each) for each in zip(*columns, strict=True)]
    return table[(states["status"] != "retired").to_numpy()].reset_index(drop=True)


def _reason(there: bool, state: str, why: str, held: float, trade: float) -> str:
    """Why an asset is not traded, or is sold for good."""
    if state != State.OBSERVED.name and (there or held):
        return "closed" if state == State.CLOSED.name else "no price tonight"
    if not there:
        return f"sold: not in the universe ({why})" if trade else f"not in the universe ({why})"
    return "" if trade else "at its target, or nearer than the least trade"
