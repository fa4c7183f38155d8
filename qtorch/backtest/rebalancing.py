"""Runs an allocator through the past: it decides on what was known, its weights drift, and its trades are paid for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from qtorch.backtest.schedule import Rebalance, rebalance_rows
from qtorch.backtest.track import Track
from qtorch.backtest.violations import violations
from qtorch.data import DataError, Panel
from qtorch.data.errors import listing
from qtorch.data.rows import label
from qtorch.data.standing import known_gone
from qtorch.distributions.checks import require
from qtorch.portfolio import Constraints, Costs, Simulation, simulate

Allocate = Callable[[Panel, int, Tensor], Tensor | pd.Series]
"""An allocator: a function, or an object that is called like one.

It is given the panel as it stood at the decision, its last row, and today's weights `[N]` in float64, drifted with the
prices (0 before the first purchase). It answers with weights `[N]` in units of the equity; what they lack of 1 is cash.
"""


@runtime_checkable
class Refits(Protocol):
    """An allocator that is fit again as time goes by."""

    refit_every: int  # rebalances from one fit to the next; the first is before the first decision

    def refit(self, panel: Panel, row: int, /) -> None:
        """Fits to a panel that has no rows after the given one."""
        ...


@dataclass(frozen=True)
class WalkForward:
    """How allocators are tried; the same for all that are compared.

    An allocator decides at the close of a row and trades at that close, or `lag` rows later. It is given the panel as
    it stood at the decision, cut by `Panel.until`, so it can't see later rows. Between rebalances the weights drift;
    all money is accounted by `qtorch.portfolio.simulate`.

    Only assets with a price on the row of the trades are traded; others stay as they are. What the panel knows to be
    delisted (give it `delisted`) is sold at its last price on the first row after its last listed one, and what it
    brings is cash until the next rebalance. Without that knowledge such a position stays at its last price, as a
    halted one does.

    Attributes:
        rebalance: ``"year"``, ``"quarter"``, ``"month"``, ``"week"`` (at the last row of each) or every so many rows.
        start: first date that may be earned, not before the second row; the first trades are at the row before it.
        end: last date; None is the panel's.
        costs: rates; square-root impact is not possible here.
        lag: rows from the decision to its trades.
        constraints: what the weights are checked against; they are not enforced.
        groups: labels of each asset by the name of a partition, for the constraints' caps.

    Example:
        >>> from qtorch.backtest import EqualWeight, summary
        >>> from qtorch.data import load_sample
        >>> sample = load_sample()
        >>> panel = Panel.from_frame(sample[sample["asset"].isin(["AAPL", "KO"]) & (sample["date"] > "2019")])
        >>> walk = WalkForward("month", start="2020-01-01", costs=Costs(proportional=0.001))
        >>> track = walk.run(panel, EqualWeight())
        >>> summary(track)[["annual_return", "volatility", "sharpe"]].round(2).to_dict()
        {'annual_return': 0.15, 'volatility': 0.27, 'sharpe': 0.67}
    """

    rebalance: Rebalance = "month"
    start: str | pd.Timestamp | None = None
    end: str | pd.Timestamp | None = None
    costs: Costs = Costs()
    lag: int = 0
    constraints: Constraints | None = None
    groups: Mapping[str, Int[Tensor, " N"]] | None = None

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: a negative lag, or costs with impact.
        """
        require(self.lag >= 0, "lag", self.lag, "give a number of rows of at least 0")
        require(not self.costs.impact, "costs.impact", self.costs.impact, "only proportional and financing costs here")

    def run(self, panel: Panel, allocate: Allocate, *, holdings: Float64[Tensor, " N"] | None = None) -> Track:
        """Runs an allocator.

        Args:
            panel: all of it; the allocator sees its past alone.
            allocate: the allocator; one that `Refits` is fit first, and again every `refit_every` rebalances.
            holdings: weights before the first trades; none by default, so that the first purchase is paid for.

        Raises:
            DataError: no rows between start and end, or none before the start; weights that are no numbers, or not one
                for each asset.
        """
        first, last = self._span(panel.dates)
        scheduled = rebalance_rows(panel.dates, self.rebalance, first, last)
        returns = panel.returns()
        there = returns.isfinite()
        gone = known_gone(panel)
        sales = (
            first + 1 + (gone[first + 1 : last] & ~gone[first : last - 1]).any(1).nonzero().squeeze(-1).cpu().numpy()
        )
        rows = np.union1d(scheduled, sales)
        held = returns.new_zeros(returns.shape[1]) if holdings is None else holdings.double().to(returns.device)
        ledgers, trades, before, open_, decided = [], [], [], [], 0
        for row, stop in zip(rows, [*rows[1:], last], strict=True):
            target, tradable = torch.where(gone[row], 0.0, held), gone[row]
            if row in scheduled:
                asked = self._ask(panel, allocate, int(row), held, decided)
                target, tradable = torch.where(gone[row], 0.0, asked), tradable | panel.mask[row]
                decided += 1
            ledger = self._hold(target, tradable, held, returns[row + 1 : stop + 1], there[row + 1 : stop + 1])
            trades.append(ledger.weights[0] - held)
            before.append(held)
            open_.append(tradable)
            held = ledger.final
            ledgers.append(ledger)
        return self._track(panel, rows, np.isin(rows, scheduled), ledgers, trades, before, open_)

    def _span(self, dates: pd.DatetimeIndex) -> tuple[int, int]:
        """The row of the first trades and the last row."""
        first = self.lag if self.start is None else int(dates.searchsorted(label(self.start, "start"))) - 1
        last = len(dates) - 1 if self.end is None else int(dates.searchsorted(label(self.end, "end"), side="right")) - 1
        if not self.lag <= first < last:
            raise DataError(
                f"nothing to run from start={self.start} to end={self.end} with lag={self.lag}: the panel has "
                f"{len(dates)} rows from {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}, and the first decision needs "
                f"{self.lag + 1} of them before the start."
            )
        return first, last

    def _ask(self, panel: Panel, allocate: Allocate, row: int, held: Tensor, decided: int) -> Float64[Tensor, " N"]:
        date = panel.dates[row - self.lag]
        past = panel.until(date)
        if isinstance(allocate, Refits) and decided % allocate.refit_every == 0:
            allocate.refit(past, row - self.lag)
        return checked_weights(allocate(past, row - self.lag, held.clone()), past)

    def _hold(self, target: Tensor, tradable: Tensor, held: Tensor, returns: Tensor, there: Tensor) -> Simulation:
        """Trades before the first of the sessions and holds through the others."""
        begins = torch.arange(len(returns), device=returns.device) == 0
        every = (x.expand(returns.shape) for x in (target, tradable))
        return simulate(
            next(every), returns, there, tradable=next(every), rebalance=begins, costs=self.costs, start=held
        )

    def _track(
        self,
        panel: Panel,
        rows: np.ndarray,
        decisions: np.ndarray,
        ledgers: list[Simulation],
        trades: list[Tensor],
        before: list[Tensor],
        open_: list[Tensor],
    ) -> Track:
        net, weights, turnover, costs = (
            torch.cat([getattr(ledger, name) for ledger in ledgers])
            for name in ("returns", "weights", "turnover", "costs")
        )
        excess: dict[str, Tensor] = {}
        bought, held, tradable = torch.stack(trades), torch.stack(before), torch.stack(open_)
        if self.constraints is not None:
            excess = violations(held + bought, held, self.constraints, tradable, self.groups)
            ours = torch.as_tensor(decisions, device=bought.device)
            excess = {name: torch.where(ours, each, 0.0) for name, each in excess.items()}
        return Track(
            dates=panel.dates[rows[0] + 1 : rows[0] + 1 + len(net)],
            assets=panel.assets,
            net=net,
            weights=weights,
            turnover=turnover,
            costs=costs,
            final=ledgers[-1].final,
            trade_dates=panel.dates[rows],
            trade_rows=torch.as_tensor(rows - rows[0]),
            trades=bought,
            decisions=tuple(decisions.tolist()),
            excess=excess,
        )


def checked_weights(weights: Tensor | pd.Series, panel: Panel) -> Float64[Tensor, " N"]:
    """An allocator's answer as a tensor in the order of the panel's assets; those that a Series lacks get 0.

    Raises:
        DataError: it has weights of other assets, not one for each, or one that is no number.
    """
    date, device = f"{panel.dates[-1]:%Y-%m-%d}", panel.values.device
    if isinstance(weights, pd.Series):
        unknown = [name for name in weights.index if name not in panel.assets]
        if unknown or not weights.index.is_unique:
            raise DataError(f"{date}: the weights name assets twice or that the panel lacks: {listing(unknown)}.")
        weights = torch.tensor(weights.reindex(list(panel.assets), fill_value=0.0).to_numpy(dtype=float))
    w = weights.detach().double().to(device)
    if w.shape != (len(panel.assets),):
        raise DataError(f"{date}: the allocator gave weights of shape {tuple(w.shape)} for {len(panel.assets)} assets.")
    if not w.isfinite().all():
        bad = [panel.assets[i] for i in (~w.isfinite()).nonzero().squeeze(-1).tolist()]
        raise DataError(f"{date}: the allocator gave no number for {listing(bad)}.")
    return w
