"""A track's figures on one line."""

import pandas as pd
import torch

from qtorch.backtest.track import Track
from qtorch.portfolio import cvar, maximum_drawdown, sharpe


def summary(track: Track, *, periods: float = 252.0, level: float = 0.95) -> pd.Series:
    """Return, risk and trading of a portfolio, net of costs.

    Returns:
        `annual_return` geometric; `volatility` and `sharpe` (riskless rate 0) annualised; `sharpe_gross` with costs
        added back; `max_drawdown`, a positive share of the peak, of which the start is one; `cvar` of a session, a
        positive loss; `turnover`, one-way a year, without a first purchase from cash; `costs` a year;
        `effective_number`, the mean of 1 / sum w^2 after rebalances (cash is no asset); `largest_weight` after one, in
        size; `violations`, how many rebalances break a constraint; `sessions`; `rebalances`.

    Args:
        track: of a run.
        periods: sessions in a year.
        level: confidence of the conditional value at risk.
    """
    years = len(track.dates) / periods
    traded = track.turnover.clone()
    if bool((track.weights[0] == track.trades[0]).all()):  # nothing was held before
        traded[0] = 0.0
    decided = track.weights[track.trade_rows[torch.tensor(track.decisions)].to(track.weights.device)]
    invested = decided[decided.abs().sum(-1) > 0]
    return pd.Series(
        {
            "annual_return": float(track.wealth[-1]) ** (1 / years) - 1,
            "volatility": float(track.net.std()) * periods**0.5,
            "sharpe": float(sharpe(track.net, periods=periods)),
            "sharpe_gross": float(sharpe(track.gross, periods=periods)),
            "max_drawdown": float(maximum_drawdown(track.net)),
            "cvar": float(cvar(track.net, level)),
            "turnover": float(traded.sum()) / 2 / years,
            "costs": float(track.costs.sum()) / years,
            "effective_number": float((1 / (invested**2).sum(-1)).mean()),
            "largest_weight": float(decided.abs().max()),
            "violations": float(len(track.violations())),
            "sessions": float(len(track.dates)),
            "rebalances": float(sum(track.decisions)),
        }
    )
