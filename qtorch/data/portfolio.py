"""A portfolio's hypothetical past as a market of one asset."""

from dataclasses import replace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.data.calendars import Calendar
from qtorch.data.errors import DataError
from qtorch.data.panel import Panel

_EVERY_DAY = "Mon Tue Wed Thu Fri Sat Sun"


def portfolio_panel(panel: Panel, exposures: Float[Tensor, " N"], *, name: str = "portfolio") -> Panel:
    """What today's positions would have returned, as a panel of one asset that any forecaster can be asked about.

    The return of a date is per unit of gross exposure, rebalanced to today's weights each date, so that the law of the
    profit is the forecast's times `exposures.abs().sum()`; a position without a return on it (a holiday, before its
    listing) earns nothing. The dates are those on which some position has a return,
    and each is a session of a calendar of the portfolio's own.

    Args:
        panel: the market.
        exposures: weights or market values, negative for short positions.
        name: of the asset and its exchange.

    Raises:
        DataError: there is not one finite exposure for each asset, all are zero, none has returns, or the portfolio
            loses all it has on a date.

    Example:
        >>> from qtorch.data import load_sample
        >>> market = Panel.from_frame(load_sample()).select(["AAPL", "KO"])
        >>> portfolio_panel(market, torch.tensor([0.5, 0.5])).assets
        ('portfolio',)
    """
    exposures = exposures.double().to(panel.values.device)
    if exposures.shape != (len(panel.assets),) or not exposures.isfinite().all() or not exposures.any():
        raise DataError(
            f"a portfolio of {len(panel.assets)} assets needs as many finite exposures, not all zero; given is "
            f"{exposures.tolist() if exposures.numel() <= 10 else tuple(exposures.shape)}."
        )
    returns = panel.returns()
    held = returns.isfinite() & (exposures != 0)
    there = held.any(1)
    if not there.any():
        raise DataError("no position of the portfolio has a return in this panel.")
    earned = torch.where(held, returns, 0.0) @ (exposures / exposures.abs().sum())
    dates = panel.dates[there.cpu().numpy()]
    if (earned <= -1).any():
        raise DataError(f"the portfolio loses all it has on {panel.dates[int((earned <= -1).nonzero()[0])]:%Y-%m-%d}.")
    before = panel.dates[: panel.dates.get_loc(dates[0])][-1:]  # the date from which the first return counts
    days = before.append(dates)
    closes = (1 + earned[there]).cumprod(0).cpu().numpy()
    frame = pd.DataFrame({name: [*[1.0] * len(before), *closes]}, index=days)
    # The next session, which is known ahead, is the first of any exchange of a position.
    ahead = pd.Timestamp(int(panel.next_session_day[-1][exposures != 0].min()), unit="D")
    every = pd.date_range(days[0], max(days[-1], ahead))
    closed = tuple(every[~every.isin(days.append(pd.DatetimeIndex([ahead])))])
    calendar = Calendar(name, "24:00", weekdays=_EVERY_DAY, holidays=closed, first=days[0])
    built = Panel.from_frame(frame, exchange=name, calendars=[calendar])
    return replace(built, as_of=panel.as_of[panel.dates.get_indexer(days)]).to(panel.values.device)
