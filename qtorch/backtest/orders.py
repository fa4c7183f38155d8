"""Signals as orders: on which row of a panel each fills, at what price, and what is refused as look-ahead."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int

from qtorch.backtest.currencies import Currencies
from qtorch.backtest.signals import Signals, Sizing
from qtorch.data import DataError, Panel, sessions
from qtorch.data.calendars import AnyCalendar, Sessions, code_of, day_number
from qtorch.data.errors import counted, listing, span
from qtorch.data.standing import known_gone

_COLUMNS = 64  # assets at once, so that no whole panel of indices is made
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Orders:
    """Target weights of `N` assets on the `T` dates on which they fill, and all prices that an account needs.

    Prices are in one currency. What fills on one date fills at once: where exchanges open or close one after another,
    the equity that sizes the first already knows the prices of the last, unless `sizing` is ``"known"``.

    Attributes:
        targets: weights in units of the equity; NaN is no order. 0 on the first date after a delisting that is known.
        prices: at the phase, of all assets that have one; NaN where there is none. A delisted asset is sold at its last
            close.
        closes: the last known, at which positions are valued; NaN before an asset's first.
        phase: whether orders fill at the open of a date's session or at its close.
        sizing: see `Signals`.
        dates: of the panel.
        assets: names.
        pending: the last order of each asset that does not fill within the panel: date, asset, value, known_at, reason.
    """

    targets: Float64[np.ndarray, "T N"]
    prices: Float64[np.ndarray, "T N"]
    closes: Float64[np.ndarray, "T N"]
    phase: Literal["open", "close"]
    sizing: Sizing
    dates: pd.DatetimeIndex
    assets: tuple[str, ...]
    pending: pd.DataFrame

    def __post_init__(self) -> None:
        """Refuses orders that can't be filled or valued.

        Raises:
            DataError: shapes that differ; an order without a price above 0, or without the close that sizes it.
        """
        shape = (len(self.dates), len(self.assets))
        if not self.targets.shape == self.prices.shape == self.closes.shape == shape:
            raise DataError(f"targets, prices and closes must be of {shape[0]} dates and {shape[1]} assets.")
        for rows in _rows(shape[0]):
            ordered = ~np.isnan(self.targets[rows])
            self._refuse(rows, ordered & ~(self.prices[rows] > 0), "orders without a price above 0", "Drop them")
            if self.sizing == "known":
                before = self.closes[rows.start - 1 : rows.stop - 1] if rows.start else self.closes[: rows.stop - 1]
                unknown = (
                    np.isnan(before) if rows.start else np.vstack([np.ones((1, shape[1]), bool), np.isnan(before)])
                )
                wanted = ordered & (self.targets[rows] != 0)
                what = "orders that no close before their fill can size"
                self._refuse(rows, wanted & unknown, what, "Begin a session later, or give sizing='fill'")

    def _refuse(self, rows: slice, bad: Bool[np.ndarray, "t N"], what: str, remedy: str) -> None:
        if bad.any():
            t, n = (index[:5] for index in np.nonzero(bad))
            cells = [f"{self.assets[j]} {self.dates[rows][i]:%Y-%m-%d}" for i, j in zip(t, n, strict=True)]
            raise DataError(f"{what}: {listing(cells, total=int(bad.sum()))}. {remedy}.")

    @cached_property
    def fill_values(self) -> Float64[np.ndarray, "T N"]:
        """What a unit is worth as a date's orders fill: its price then, or the last close; NaN before its first."""
        last = self.closes if self.phase == "close" else _before(self.closes)
        return np.where(np.isnan(self.prices), last, self.prices)

    @cached_property
    def sizing_values(self) -> Float64[np.ndarray, "T N"]:
        """What a unit counts for in turning weights into units: at the fill, or with sizing ``"known"`` its last close.

        An asset without one can't be held or ordered by it, and counts for its value at the fill.
        """
        if self.sizing == "fill":
            return self.fill_values
        before = _before(self.closes)
        return np.where(np.isnan(before), self.fill_values, before)

    def trades(self, t: int, held: Float64[np.ndarray, " N"], cash: float) -> list[tuple[int, float]]:
        """What an account trades to follow a row's targets, all sized before the first of them trades.

        Args:
            t: the row.
            held: units of each asset before the trades.
            cash: of the account before the trades; negative where it borrows.

        Returns:
            Columns of assets with the units that are bought (positive) or sold, sells before buys. What trades nothing
            is left out.

        Raises:
            DataError: an asset is held that has no price yet.

        Example:
            >>> dates, one = pd.DatetimeIndex(["2024-01-02"]), np.ones((1, 2))
            >>> targets = np.array([[0.5, 0.0]])
            >>> orders = Orders(targets, 10 * one, 10 * one, "close", "fill", dates, ("A", "B"), pd.DataFrame())
            >>> orders.trades(0, np.array([0.0, 4.0]), 60.0)
            [(1, -4.0), (0, 5.0)]
        """
        values, targets = self.sizing_values[t], self.targets[t]
        unvalued = [self.assets[i] for i in np.flatnonzero((held != 0) & np.isnan(values))]
        if unvalued:
            raise DataError(
                f"{self.dates[t]:%Y-%m-%d}: held before a first price: {listing(unvalued)}. Begin after it."
            )
        equity = cash + float(np.where(held == 0, 0.0, held * values).sum())
        n = np.flatnonzero(~np.isnan(targets))
        wanted = np.divide(targets[n] * equity, values[n], out=np.zeros(len(n)), where=targets[n] != 0)
        units = wanted - held[n]
        sells_first = np.argsort(units > 0, kind="stable")
        return [(int(n[i]), float(units[i])) for i in sells_first if units[i]]

    def __repr__(self) -> str:
        return (
            f"Orders({int((~np.isnan(self.targets)).sum())} at the {self.phase} of {counted(len(self.dates), 'date')} "
            f"{span(self.dates)}, {counted(len(self.assets), 'asset')}, sizing {self.sizing}; "
            f"{len(self.pending)} pending)"
        )

    def _repr_html_(self) -> str:
        from qtorch.backtest.cards import orders_card

        return orders_card(self)


def place(signals: Signals, panel: Panel, currencies: Currencies | None = None) -> Orders:
    """Puts signals on the rows of a panel on which they fill.

    Of an asset's values that fill on the same session, the one that was known last counts. An order for a session
    without a price (a halt) waits for the asset's next price, unless a later one takes its place. Prices are those of
    the panel, adjusted as they are there, so that units of an account are of adjusted shares.

    Args:
        signals: of weights.
        panel: of prices; it may begin and end on other dates than the signals.
        currencies: rates that turn prices into the account's currency; None where they are in it.

    Raises:
        DataError: the panel lacks an asset or, for opens, the field; an exchange is not the panel's, or its calendar
            knows no opens; a value that was known after the close at which it should trade; a fill before the panel's
            first row; or see `Currencies`.

    Example:
        >>> import torch
        >>> from qtorch.data import load_sample
        >>> panel = Panel.from_frame(load_sample().query("asset in ['AAPL', 'KO'] and date > '2022-06'"))
        >>> signals = Signals.from_panel(panel, torch.full((2, 2), 0.5), ["2022-07-01", "2022-08-01"])
        >>> orders = signals.orders(panel)
        >>> [f"{date:%Y-%m-%d}" for date in orders.dates[~np.isnan(orders.targets[:, 0])]]
        ['2022-07-05', '2022-08-02']
    """
    panel = panel.select(signals.assets)
    _check_exchanges(signals, panel)
    T, N = panel.state.shape
    closes = panel.close.cpu().numpy()
    if signals.fill == "next_open":
        if "open" not in panel.fields:
            raise DataError("the panel has no opens to fill at. Give it the field 'open', or fill='next_close'.")
        prices = panel.field("open").cpu().numpy()
    else:
        prices = closes.copy()
    day = panel.session_day.cpu().numpy()
    gone = known_gone(panel).cpu().numpy()
    targets = np.full((T + 1, N), np.nan)  # the last row holds what does not fill
    source = np.full(N, -1)  # the row of the signals that each pending order comes from
    beyond = np.zeros(N, dtype=bool)
    for calendar, columns in signals.by_exchange():
        timetable = _Timetable.of(signals, calendar, panel)
        for start in range(0, len(columns), _COLUMNS):
            block = columns[start : start + _COLUMNS]
            d, n = np.nonzero(~np.isnan(signals.values[:, block]))
            known = signals.known_at[:, block][d, n].astype(np.int64)
            session = timetable.session(signals, d, block[n], known)
            row = timetable.fill_row(session, n, ~np.isnan(prices[:, block]), day[:, block])
            order = np.argsort(known, kind="stable") if (np.diff(known) < 0).any() else slice(None)
            d, n, row, first = d[order], block[n][order], row[order], timetable.row[session][order]
            targets[row, n] = signals.values[d, n]  # of the same place, the last counts
            left = row == T
            source[n[left]], beyond[n[left]] = d[left], first[left] == T
    for t in range(1, T):  # in place: three times faster than pandas' ffill, which goes down the columns
        np.copyto(closes[t], closes[t - 1], where=np.isnan(closes[t]))
    sold = gone.copy()
    sold[1:] &= ~gone[:-1]
    targets[:T][sold] = 0.0
    prices[sold] = closes[sold]
    pending = _pending(signals, source, beyond, gone[-1])
    targets = targets[:T]
    if currencies is not None:
        ordered = (~np.isnan(targets)).any(1)
        rates = currencies.on(panel.dates, panel.assets, max(int(ordered.argmax()) - 1, 0) if ordered.any() else T)
        prices, closes = prices * rates, closes * rates
    phase: Literal["open", "close"] = "open" if signals.fill == "next_open" else "close"
    return Orders(targets, prices, closes, phase, signals.sizing, panel.dates, panel.assets, pending)


@dataclass(frozen=True)
class _Timetable:
    """When an exchange's sessions trade, and on which row of a panel each is known; one more entry stands for later."""

    calendar: Sessions
    trades: np.ndarray  # the instant of each session's fill, in microseconds
    row: np.ndarray
    day: np.ndarray
    before: np.ndarray  # sessions before the panel's first row

    @classmethod
    def of(cls, signals: Signals, calendar: AnyCalendar, panel: Panel) -> "_Timetable":
        first, last = signals.dates[0], max(signals.dates[-1], panel.dates[-1])
        if (signals.known_at[0] < first.to_datetime64()).any():
            first = first - pd.Timedelta(days=1)  # it may fill in the evening before, as dates go
        found = sessions(calendar, first, last)
        if signals.fill == "next_open" and found.opens is None:
            raise DataError(
                f"{found.exchange}: its calendar knows no opens. Give fill='next_close', or a Calendar with "
                "open='09:30' among the calendars."
            )
        trades = found.opens if signals.fill == "next_open" and found.opens is not None else found.closes
        row = panel.as_of.as_unit("us").searchsorted(found.closes)
        latest = int(panel.exchange_close[0, panel.exchange_codes.index(found.exchange)])
        before = (row == 0) & (found.closes.asi8 // 60_000_000 != latest)
        return cls(
            found,
            trades.asi8,
            np.append(row, len(panel.dates)),
            np.append(day_number(found.days), _NEVER),
            np.append(before, False),
        )

    def session(
        self, signals: Signals, d: Int[np.ndarray, " k"], n: Int[np.ndarray, " k"], known: Int[np.ndarray, " k"]
    ) -> Int[np.ndarray, " k"]:
        """The session at which each value should trade."""
        if signals.fill == "this_close":
            session = self.calendar.days.get_indexer(signals.dates)[d]
            late = known > self.trades[session]
            if late.any():
                i = int(late.argmax())
                close = self.calendar.closes[session[i]]
                which = signals.named(_cell(signals, d[i], n[i]))
                raise DataError(
                    f"look-ahead: {int(late.sum())} values are to trade at a close of {self.calendar.exchange} before "
                    f"they are known, the first {which} at {close:%Y-%m-%d %H:%M} UTC. "
                    "Give fill='next_open' or 'next_close', or stamp known_at by exchange where a value knows no more."
                )
        else:
            session = self.trades.searchsorted(known, side="right")
        early = self.before[session]
        if early.any():
            i = int(early.argmax())
            raise DataError(
                f"{int(early.sum())} values fill before the panel's first row, the first "
                f"{signals.named(_cell(signals, d[i], n[i]))}. Give a panel that begins earlier, or drop them."
            )
        return session

    def fill_row(
        self,
        session: Int[np.ndarray, " k"],
        n: Int[np.ndarray, " k"],
        priced: Bool[np.ndarray, "T n"],
        day: Int[np.ndarray, "T n"],
    ) -> Int[np.ndarray, " k"]:
        """The first row with a price of the session or a later one; T where there is none."""
        T = len(priced)
        following = np.where(priced, np.arange(T, dtype=np.int32)[:, None], np.int32(T))
        following = np.vstack([following, np.full((1, following.shape[1]), T, dtype=np.int32)])
        following = np.minimum.accumulate(following[::-1], axis=0)[::-1]
        row = following[self.row[session], n]
        day = np.vstack([day, np.full((1, day.shape[1]), np.iinfo(day.dtype).max, dtype=day.dtype)])
        while (older := (row < T) & (day[row, n] < self.day[session])).any():  # a late price of a session before
            row[older] = following[row[older] + 1, n[older]]
        return row


def _check_exchanges(signals: Signals, panel: Panel) -> None:
    ours = [code_of(each) for each in signals.exchanges]
    wrong = [
        f"{asset} ({mine}, the panel's is {its})"
        for asset, mine, its in zip(panel.assets, ours, panel.exchanges, strict=True)
        if mine != its
    ]
    if wrong:
        raise DataError(f"other exchanges than the panel's: {listing(wrong)}. Correct the ones that are wrong.")


def _pending(
    signals: Signals,
    source: Int[np.ndarray, " N"],
    beyond: Bool[np.ndarray, " N"],
    gone: Bool[np.ndarray, " N"],
) -> pd.DataFrame:
    n = np.flatnonzero(source >= 0)
    d = source[n]
    reason = np.where(gone[n], "delisted", np.where(beyond[n], "the panel ends before", "no price yet"))
    return pd.DataFrame(
        {
            "date": signals.dates[d],
            "asset": pd.array([signals.assets[i] for i in n], dtype="str"),
            "value": signals.values[d, n],
            "known_at": pd.DatetimeIndex(signals.known_at[d, n], tz="UTC"),
            "reason": pd.array(list(reason), dtype="str"),
        }
    )


def _cell(signals: Signals, d: np.integer, n: np.integer) -> Bool[np.ndarray, "D N"]:
    cell = np.zeros(signals.values.shape, dtype=bool)
    cell[d, n] = True
    return cell


def _before(closes: Float64[np.ndarray, "T N"]) -> Float64[np.ndarray, "T N"]:
    """The closes of the row before, NaN on the first."""
    return np.vstack([np.full((1, closes.shape[1]), np.nan), closes[:-1]])


def _rows(T: int, most: int = 512) -> Iterator[slice]:
    for start in range(0, T, most):
        yield slice(start, min(start + most, T))
