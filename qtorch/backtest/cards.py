"""Signals, orders, accounts and walks as a notebook shows them."""

import numpy as np
import pandas as pd
from jaxtyping import Float64

from qtorch.backtest.account import Account
from qtorch.backtest.orders import Orders
from qtorch.backtest.signals import Signals
from qtorch.backtest.walk.result import Walk
from qtorch.data.calendars import code_of
from qtorch.data.errors import counted, listing
from qtorch.forecast import Forecast
from qtorch.forecast_card import forecast_card
from qtorch.html import card, sparkline, table

_ROWS = 5


def signals_card(signals: Signals) -> str:
    """When the values were known and what they do with it, what they add up to, and the largest of the last date."""
    count, first, latest, gross = _extent(signals)
    last = signals.values[-1]
    facts = {
        "dates": _dates(signals.dates),
        "assets": f"{len(signals.assets):,}: {listing(signals.assets)}",
        "exchanges": listing(dict.fromkeys(map(code_of, signals.exchanges))),
        "values": f"{count:,}; {signals.values.size - count:,} without an order",
        "known at": f"{_instant(first)} to {_instant(latest)} UTC" if count else "none",
        "fill, sizing": f"{signals.fill}, {signals.sizing}",
        "gross, net": f"{gross[-1]:.4g}, {np.nansum(last):.4g} on the last date; "
        f"gross {gross.min():.4g} to {gross.max():.4g}",
    }
    order = np.argsort(-np.abs(np.nan_to_num(last)), kind="stable")[:_ROWS]
    rows = [
        [signals.assets[n], f"{last[n]:.4g}", _instant(signals.known_at[-1, n])] for n in order if not np.isnan(last[n])
    ]
    largest = table(["asset", "value", "known at (UTC)"], rows, f"largest of {signals.dates[-1]:%Y-%m-%d}")
    return card("Signals", facts, sparkline(gross, "gross, by date"), largest if rows else "")


def orders_card(orders: Orders) -> str:
    """Where orders fill, and what is pending."""
    count = orders.targets.size - np.count_nonzero(np.isnan(orders.targets))
    facts = {
        "dates": _dates(orders.dates),
        "assets": f"{len(orders.assets):,}: {listing(orders.assets)}",
        "orders": f"{count:,} at the {orders.phase}, sizing {orders.sizing}",
        "pending": f"{len(orders.pending):,}",
    }
    rows = [
        [asset, f"{date:%Y-%m-%d}", f"{value:.4g}", reason]
        for asset, date, value, reason in orders.pending[["asset", "date", "value", "reason"]].head(_ROWS).to_numpy()
    ]
    return card("Orders", facts, table(["asset", "date", "value", "reason"], rows, "pending") if rows else "")


def account_card(account: Account) -> str:
    """What an account came to."""
    gain = account.equity[-1] / account.initial - 1
    facts = {
        "dates": _dates(account.dates),
        "assets": f"{len(account.assets):,}: {listing(account.assets)}",
        "equity": f"{account.initial:,.2f} to {account.equity[-1]:,.2f} ({gain:+.2%})",
        "costs": f"{account.costs.sum():,.2f}",
        "financing": f"{account.financing.sum():+,.2f}",
        "turnover": f"{account.turnover.sum():.4g} times the equity, two-way",
        "orders": f"on {counted(len(account.trade_rows), 'date')}",
    }
    return card("Account", facts, sparkline(account.equity, "equity, by date"))


def walk_card(walk: Walk) -> str:
    """The refits of a walk, and its forecasts or the largest weights of its last date."""
    facts = {
        "dates": _dates(walk.dates),
        "known at": f"{walk.known_at[0]:%Y-%m-%d %H:%M} to {walk.known_at[-1]:%Y-%m-%d %H:%M} UTC",
        "refits": listing([f"{date:%Y-%m-%d}" for date in walk.refits.unique()]),
    }
    if isinstance(walk.answer, Forecast):
        return card("Walk of a forecaster", facts, forecast_card(walk.answer))
    last = walk.answer.iloc[-1]
    largest = last[last.abs().sort_values(ascending=False, kind="stable").index[:_ROWS]]
    rows = [[asset, f"{weight:.2%}"] for asset, weight in largest.items()]
    return card(
        "Walk of an allocator", facts, table(["asset", "weight"], rows, f"largest on {walk.dates[-1]:%Y-%m-%d}")
    )


def _extent(signals: Signals) -> tuple[int, np.datetime64, np.datetime64, Float64[np.ndarray, " D"]]:
    """How many values there are, the first and the last instant at which one was known, and the gross of each date."""
    there = ~np.isnan(signals.values)
    ticks, unit = signals.known_at.view(np.int64), signals.known_at.dtype  # integers need no look for NaT
    ends = np.iinfo(np.int64)
    first, latest = ticks.min(where=there, initial=ends.max), ticks.max(where=there, initial=ends.min)
    gross = np.abs(signals.values).sum(1, where=there)
    return int(there.sum()), np.int64(first).view(unit), np.int64(latest).view(unit), gross


def _dates(dates: pd.DatetimeIndex) -> str:
    return f"{len(dates):,}, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}"


def _instant(stamp: np.datetime64) -> str:
    return f"{pd.Timestamp(stamp):%Y-%m-%d %H:%M}"
