"""A trained allocator for walk-forward runs."""

from collections.abc import Iterable

import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from qtorch.data import DataError, Panel
from qtorch.training import Allocator


class Walked:
    """Lets `WalkForward` run an `Allocator`, whose features are made once for the whole panel.

    They depend on nothing later than their row, so that the weights are those of `Allocator.allocate` on the panel as
    it stood at the decision. While nothing is held, they are those without holdings: what is closed on the day of the
    first purchase stays cash until the next rebalance.

    The allocator is taken as it is; train it on what came before the run.

    Args:
        allocator: the model.
        panel: the one that is walked through.
        dates: of decisions that are prepared in one pass over the panel and kept, such as another run's `trade_dates`;
            each other date takes a pass of its own.

    Raises:
        DataError: a date is not among the panel's.

    Example:
        >>> from qtorch.backtest import EqualWeight, WalkForward
        >>> from qtorch.data import WindowSpec, load_sample
        >>> from qtorch.models import AssetGraph, GraphCovariance, Recurrent
        >>> from qtorch.portfolio import MinimumVariance
        >>> _ = torch.manual_seed(0)
        >>> panel = Panel.from_frame(load_sample().query("asset in ['AAPL', 'JPM', 'KO', 'XOM'] and date > '2020'"))
        >>> spec = WindowSpec(16)
        >>> states = AssetGraph(Recurrent(len(spec.features), width=4), estimates=2, width=8)
        >>> model = Allocator(GraphCovariance(states), MinimumVariance(upper=0.5), spec)
        >>> walk = WalkForward("month", start="2022-01-01", end="2022-06-30")
        >>> equal = walk.run(panel, EqualWeight())
        >>> track = walk.run(panel, Walked(model, panel, equal.trade_dates))
        >>> float(track.net.std()) < float(equal.net.std())
        True
    """

    def __init__(self, allocator: Allocator, panel: Panel, dates: Iterable[str | pd.Timestamp] = ()) -> None:
        self.allocator, self.panel = allocator, panel
        self.dates = [pd.Timestamp(date) for date in dates]
        self._source = allocator.source(panel)
        rows = [panel.row(date) for date in self.dates]
        self._place = {row: k for k, row in enumerate(rows)}
        self._decisions = self._source.at(rows) if rows else None

    def __call__(self, panel: Panel, row: int, holdings: Float64[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Weights on the panel's last row.

        Raises:
            DataError: the panel is not the one that is walked through, cut at the row.
            ValueError: no weights keep to the constraints.
        """
        whole = self.panel
        ours = panel.assets == whole.assets and row < len(whole.dates) and panel.dates[row] == whole.dates[row]
        if not (ours and torch.equal(panel.mask[row], whole.mask[row])):
            raise DataError(
                f"{panel.dates[row]:%Y-%m-%d}, row {row}: not that row of the panel that this allocator walks through. "
                "Make one of the panel that is run."
            )
        held = holdings.unsqueeze(0) if holdings.any() else None
        k = self._place.get(row)
        known = self._source.at([row]) if self._decisions is None or k is None else self._decisions[k : k + 1]
        return self.allocator.decide(known, held)[0].to(holdings.device)
