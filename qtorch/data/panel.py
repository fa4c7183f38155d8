"""The market as a panel: values and their state on the union of its exchanges' calendars, point in time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor

from qtorch.data import clean
from qtorch.data.calendars import Sessions, sessions
from qtorch.data.errors import DataError, listing

EPOCH = pd.Timestamp("1970-01-01")


class State(IntEnum):
    """Why a panel's cell holds a price or not."""

    UNLISTED = 0  # before the asset's first or after its last price
    CLOSED = 1  # the exchange has no session
    MISSING = 2  # a session without a price: a halt or a fault of the data
    OBSERVED = 3  # a price is there


@dataclass(frozen=True, eq=False)
class Panel:
    """Prices of `N` assets at `T` dates, the union of their exchanges' sessions; an immutable value.

    Row t holds exactly what is known at the instant `as_of[t]`: for each asset the latest close that became known
    after `as_of[t-1]`. With the default as-of, after the last close of the day, that is the close labelled
    `dates[t]`; at ``"16:30 Europe/London"`` New York's column holds the close of its session before.

    Attributes:
        values: prices and volumes, NaN where nothing is observed. float64, because daily returns of pegged
            currencies (1e-5) would lose three digits in float32.
        state: a `State` per cell.
        dates: tz-naive session labels, ascending.
        assets: names, in the order of the columns.
        fields: names of the values' last axis; ``close`` is always among them.
        exchanges: the exchange code (MIC) of each asset.
        as_of: UTC instants up to which the rows know the world.
        session_day: the label of the session whose close a cell holds, in days since 1970; -1 where none.
        next_session_day: the label of the exchange's next session after the one known, in days since 1970.
        is_session: whether a close of the asset's exchange became known between `as_of[t-1]` and `as_of[t]`.
        findings: what was noticed or set aside while building: kind, asset, date, row of the frame, detail.
    """

    values: Float64[Tensor, "T N F"]
    state: UInt8[Tensor, "T N"]
    dates: pd.DatetimeIndex
    assets: tuple[str, ...]
    fields: tuple[str, ...]
    exchanges: tuple[str, ...]
    as_of: pd.DatetimeIndex
    session_day: Int64[Tensor, "T N"]
    next_session_day: Int64[Tensor, "T N"]
    is_session: Bool[Tensor, "T N"]
    findings: pd.DataFrame

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        exchange: str | Mapping[str, str] | None = None,
        as_of: str | None = None,
        bad_rows: Literal["raise", "quarantine"] = "raise",
        off_calendar: Literal["keep", "drop", "raise"] = "keep",
        jump: float = 0.5,
    ) -> "Panel":
        """Builds a panel from a long frame, a frame indexed by (date, asset), or wide closes.

        Args:
            frame: columns `date`, `asset`, `close` and, unless the argument is given, `exchange`; optional `open`,
                `high`, `low`, `volume`. Or the same with a MultiIndex (date, asset). Or, with a DatetimeIndex,
                one column of closes per asset. A row without a close says that there is no price.
            exchange: the exchange code of all assets, or of each.
            as_of: ``"HH:MM Zone"``, a wall-clock time of each date (``"16:30 Europe/London"``); None is after the
                last close of the date.
            bad_rows: ``"raise"`` refuses the frame for rows that cannot be right (a non-positive, infinite or
                unreadable price, a duplicate, dates out of order); ``"quarantine"`` leaves those rows out (rows
                out of order are sorted) and lists each in `findings`.
            off_calendar: what to do with a price on a day on which the exchange is closed: keep it as observed and
                list it in `findings`, drop it and list it, or raise.
            jump: one-session moves beyond this (0.5 is 50 %) are listed in `findings`.

        Raises:
            DataError: rows that cannot be used, named by asset, date and row; an unknown exchange code; a date
                beyond the exchange's calendar.

        Example:
            >>> import pandas as pd
            >>> closes = pd.DataFrame(
            ...     {"SPY": [468.8, 465.3], "EWJ": [63.7, 63.2]}, index=pd.to_datetime(["2021-12-02", "2021-12-03"])
            ... )
            >>> Panel.from_frame(closes, exchange="XNYS")
            Panel(2 dates 2021-12-02..2021-12-03, 2 assets, 1 exchange, fields close; 4 observed)
        """
        rows, fields, findings = clean.clean(frame, exchange, bad_rows)
        assets = rows["asset"].unique()  # sorted, as the rows are
        exchange_of = rows.groupby("asset")["exchange"].first().reindex(assets)
        calendars = {code: sessions(code, *_span(rows, code)) for code in dict.fromkeys(exchange_of)}
        rows, strays = clean.off_calendar(rows, calendars, off_calendar)
        dates = _union(rows, calendars)
        instants = _as_of(dates, calendars, as_of)
        grid = {code: _known_rows(calendar, instants) for code, calendar in calendars.items()}

        T, N = len(dates), len(assets)
        at = np.empty(len(rows), dtype=np.int64)
        for code in calendars:
            of = (rows["exchange"] == code).to_numpy()
            at[of] = grid[code].row_of(pd.DatetimeIndex(rows.loc[of, "date"]))
        late = at == T
        superseded = pd.Series(at).groupby(rows["asset"].to_numpy()).diff(-1).to_numpy() == 0
        held = ~late & ~superseded
        kept, t, n = rows[held], at[held], np.searchsorted(assets, rows.loc[held, "asset"])
        values = np.full((T, N, len(fields)), np.nan)
        values[t, n] = kept[fields].to_numpy(dtype=float)
        day = np.full((T, N), -1)
        day[t, n] = _days(kept["date"])
        observed = ~np.isnan(values[:, :, fields.index("close")])
        is_session = np.stack([grid[code].has_session for code in exchange_of], axis=1)
        panel = cls(
            values=torch.from_numpy(values),
            state=_states(torch.from_numpy(observed), torch.from_numpy(is_session)),
            dates=dates,
            assets=tuple(assets),
            fields=tuple(fields),
            exchanges=tuple(exchange_of),
            as_of=instants,
            session_day=torch.from_numpy(day),
            next_session_day=torch.from_numpy(np.stack([grid[code].next_day for code in exchange_of], axis=1)),
            is_session=torch.from_numpy(is_session),
            findings=pd.DataFrame(),
        )
        notes = [
            findings,
            strays,
            clean.finding(
                "not_yet_known", rows[late].assign(detail=f"its close is after {instants[-1]:%Y-%m-%d %H:%M} UTC")
            ),
            clean.finding(
                "superseded", rows[superseded & ~late].assign(detail="a later close is known at the same as-of")
            ),
            panel._jumps(jump, rows),
        ]
        return replace(panel, findings=pd.concat(notes, ignore_index=True))

    @classmethod
    def from_parquet(
        cls,
        path: str | Path,
        *,
        start: str | pd.Timestamp | None = None,
        end: str | pd.Timestamp | None = None,
        **options: object,
    ) -> "Panel":
        """Builds a panel from a Parquet file or a partitioned dataset; reads only the columns and rows needed.

        Args:
            path: file or folder with the columns of `from_frame`.
            start: the first date to read, inclusive.
            end: the last date to read, inclusive.
            **options: as of `from_frame`.

        Raises:
            DataError: the file cannot be read, or `from_frame` refuses what it holds.
        """
        return cls.from_frame(clean.read_parquet(path, start, end), **options)  # type: ignore[arg-type]

    @property
    def mask(self) -> Bool[Tensor, "T N"]:
        """True where a price is observed."""
        return self.state == State.OBSERVED

    @property
    def close(self) -> Float64[Tensor, "T N"]:
        """Closing prices, NaN where none is observed."""
        return self.values[:, :, self.fields.index("close")]

    def returns(self) -> Float64[Tensor, "T N"]:
        """Simple returns from each asset's previous observed close, over closed days; NaN where none."""
        close = self.close.cpu().numpy()
        observed = np.where(np.isnan(close), -1, np.arange(len(close))[:, None])
        last = np.maximum.accumulate(observed, axis=0)
        before = np.vstack([np.full((1, close.shape[1]), -1), last[:-1]])
        previous = np.where(before < 0, np.nan, np.take_along_axis(close, np.maximum(before, 0), axis=0))
        return torch.from_numpy(close / previous - 1).to(self.values.device)

    def row(self, date: str | pd.Timestamp) -> int:
        """The row of a date.

        Raises:
            DataError: the date is not among the panel's dates.
        """
        date = pd.Timestamp(date)
        row = int(self.dates.searchsorted(date))
        if row == len(self.dates) or self.dates[row] != date:
            raise DataError(
                f"{date:%Y-%m-%d} is not a date of this panel, which has {len(self.dates)} from "
                f"{self.dates[0]:%Y-%m-%d} to {self.dates[-1]:%Y-%m-%d}, sessions of {listing(set(self.exchanges))}."
            )
        return row

    def until(self, date: str | pd.Timestamp) -> "Panel":
        """The panel as it stood at a date: its rows up to that one, with states that know nothing later."""
        n = self.row(date) + 1
        return replace(
            self,
            values=self.values[:n],
            state=_states(self.mask[:n], self.is_session[:n]),
            dates=self.dates[:n],
            as_of=self.as_of[:n],
            session_day=self.session_day[:n],
            next_session_day=self.next_session_day[:n],
            is_session=self.is_session[:n],
            findings=self.findings[self.findings["date"] <= self.dates[n - 1]],
        )

    def select(self, assets: Sequence[str]) -> "Panel":
        """The panel of some of its assets, in the order given; the dates stay.

        Raises:
            DataError: an asset is not in the panel.
        """
        unknown = [asset for asset in assets if asset not in self.assets]
        if unknown:
            raise DataError(f"not in the panel: {listing(unknown)}. It has {listing(self.assets, most=10)}.")
        at = [self.assets.index(asset) for asset in assets]
        return replace(
            self,
            values=self.values[:, at],
            state=self.state[:, at],
            assets=tuple(assets),
            exchanges=tuple(self.exchanges[i] for i in at),
            session_day=self.session_day[:, at],
            next_session_day=self.next_session_day[:, at],
            is_session=self.is_session[:, at],
            findings=self.findings[self.findings["asset"].isin(assets)],
        )

    def to(self, device: torch.device | str) -> "Panel":
        """The panel with its tensors on a device; windows are gathered there."""
        names = ("values", "state", "session_day", "next_session_day", "is_session")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def __repr__(self) -> str:
        codes = len(set(self.exchanges))
        return (
            f"Panel({len(self.dates)} dates {self.dates[0]:%Y-%m-%d}..{self.dates[-1]:%Y-%m-%d}, "
            f"{len(self.assets)} assets, {codes} exchange{'s' * (codes > 1)}, fields {' '.join(self.fields)}; "
            f"{int(self.mask.sum())} observed)"
        )

    def _jumps(self, limit: float, rows: pd.DataFrame) -> pd.DataFrame:
        returns = self.returns().numpy()
        with np.errstate(invalid="ignore"):
            t, n = np.nonzero(np.abs(returns) > limit)
        found = pd.DataFrame(
            {
                "asset": np.array(self.assets, dtype=object)[n],
                "date": EPOCH + pd.to_timedelta(self.session_day.numpy()[t, n], unit="D"),
                "detail": [f"a return of {r:+.1%}" for r in returns[t, n]],
            }
        ).astype({"date": rows["date"].dtype})
        return clean.finding("jump", found.merge(rows[["asset", "date", "row"]], on=["asset", "date"]))


@dataclass(frozen=True)
class _Grid:
    """How one exchange's sessions fall on the panel's rows."""

    sessions: Sessions
    as_of: pd.DatetimeIndex
    has_session: np.ndarray
    next_day: np.ndarray

    def row_of(self, days: pd.DatetimeIndex) -> np.ndarray:
        """The first row that knows the close of each day; T if none does."""
        return self.as_of.searchsorted(self.sessions.close_of(days))


def _known_rows(calendar: Sessions, as_of: pd.DatetimeIndex) -> _Grid:
    days = calendar.days
    known = as_of.searchsorted(calendar.closes)  # the first row that knows each close
    has_session = np.zeros(len(as_of), dtype=bool)
    has_session[known[known < len(as_of)]] = True
    upcoming = calendar.closes.searchsorted(as_of, side="right")  # the first session not yet known
    beyond = upcoming >= len(days)
    next_day = _days(days)[np.minimum(upcoming, len(days) - 1)]
    if beyond.any():  # the calendar ends with the data: the next weekday is the best that is known
        row_day = _days(as_of.tz_localize(None).normalize())
        weekday = (row_day + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
        next_day = np.where(beyond, row_day + np.where(weekday == 4, 3, np.where(weekday == 5, 2, 1)), next_day)
    return _Grid(calendar, as_of, has_session, next_day)


def _span(rows: pd.DataFrame, code: str) -> tuple[pd.Timestamp, pd.Timestamp]:
    dates = rows.loc[rows["exchange"] == code, "date"]
    return dates.min(), dates.max()


def _union(rows: pd.DataFrame, calendars: Mapping[str, Sessions]) -> pd.DatetimeIndex:
    """All sessions of all exchanges between the first and the last price, and the days of prices off the calendar."""
    first, last = rows["date"].min(), rows["date"].max()
    dates = pd.DatetimeIndex(rows["date"].unique()).as_unit("us")
    for calendar in calendars.values():
        days = calendar.days
        dates = dates.union(days[(days >= first) & (days <= last)])
    return dates.rename("date")


def _as_of(dates: pd.DatetimeIndex, calendars: Mapping[str, Sessions], as_of: str | None) -> pd.DatetimeIndex:
    if as_of is None:
        closes = np.stack([calendar.close_of(dates).asi8 for calendar in calendars.values()])
        return pd.DatetimeIndex(closes.max(axis=0).astype("M8[us]"), tz="UTC")
    try:
        clock, zone = as_of.split()
        wall = dates + pd.Timedelta(f"{clock}:00")
        return pd.DatetimeIndex(wall.tz_localize(zone, nonexistent="shift_forward", ambiguous=True)).tz_convert("UTC")
    except (ValueError, KeyError) as error:
        raise DataError(f'as_of={as_of!r} is not "HH:MM Zone", such as "16:30 Europe/London".') from error


def _states(observed: Bool[Tensor, "T N"], is_session: Bool[Tensor, "T N"]) -> UInt8[Tensor, "T N"]:
    begun = observed.cumsum(0) > 0
    ended = observed.flip(0).cumsum(0).flip(0) == 0
    state = torch.where(is_session, int(State.MISSING), int(State.CLOSED))
    state = torch.where(begun & ~ended, state, int(State.UNLISTED))
    return torch.where(observed, int(State.OBSERVED), state).to(torch.uint8)


def _days(dates: pd.Series | pd.DatetimeIndex) -> np.ndarray:
    """Days since 1970."""
    return pd.DatetimeIndex(dates).to_numpy().astype("M8[D]").astype(np.int64)
