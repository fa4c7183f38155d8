"""A market in memory for zipline: the calendar of orders' dates and their bars. Needs zipline-reloaded."""

import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from jaxtyping import Float64
from sqlalchemy import create_engine
from zipline.assets import AssetDBWriter, AssetFinder
from zipline.data.bar_reader import NoDataOnDate
from zipline.data.data_portal import DataPortal
from zipline.data.session_bars import SessionBarReader
from zipline.utils.calendar_utils import TradingCalendar


class UnionCalendar(TradingCalendar):
    """Sessions on given dates and the day before the first, whatever weekdays these are, from midnight to midnight UTC.

    Orders name the dates of several exchanges, and no calendar that zipline knows has them all.

    Args:
        dates: of the sessions.
    """

    name = "qtorch"
    tz = ZoneInfo("UTC")
    open_times = ((None, datetime.time(0)),)
    close_times = ((None, datetime.time(23, 59)),)  # after 8:45 in New York, at which zipline begins its days
    weekmask = "1111111"

    def __init__(self, dates: pd.DatetimeIndex):
        before = dates[0] - pd.Timedelta(days=1)  # a session, for zipline asks which one a date's midnight comes before
        self._closed = pd.date_range(before, dates[-1]).difference(dates.insert(0, before)).tolist()
        super().__init__(start=before, end=dates[-1], side="right")

    @property
    def adhoc_holidays(self) -> list[pd.Timestamp]:
        """Days between the dates."""
        return self._closed


class Bars(SessionBarReader):
    """Daily bars of `T` dates and `N` assets that zipline's order of sids names.

    zipline's own readers of files keep prices as whole thousandths.

    Args:
        opens: NaN where there is none.
        closes: the last known.
        dates: of the rows.
        calendar: of the dates.
    """

    def __init__(
        self,
        opens: Float64[np.ndarray, "T N"],
        closes: Float64[np.ndarray, "T N"],
        dates: pd.DatetimeIndex,
        calendar: UnionCalendar,
    ):
        traded = np.ones_like(closes)  # without a volume zipline fills nothing
        self._values = {"open": opens, "high": closes, "low": closes, "close": closes, "volume": traded}
        self._dates, self._calendar = dates, calendar

    @property
    def trading_calendar(self) -> UnionCalendar:
        """The calendar of the bars."""
        return self._calendar

    @property
    def sessions(self) -> pd.DatetimeIndex:
        """All dates."""
        return self._dates

    @property
    def first_trading_day(self) -> pd.Timestamp:
        """The first date."""
        return self.sessions[0]

    @property
    def last_available_dt(self) -> pd.Timestamp:
        """The last date."""
        return self.sessions[-1]

    def get_value(self, sid: Any, dt: pd.Timestamp, field: str) -> float:
        """A field of an asset's bar."""
        if dt not in self.sessions:
            raise NoDataOnDate(dt)
        return float(self._values[field][self.sessions.get_loc(dt), int(sid)])

    def get_last_traded_dt(self, asset: Any, dt: pd.Timestamp) -> pd.Timestamp:
        """The date itself, for closes are carried on."""
        return dt

    def load_raw_arrays(
        self, columns: list[str], start_date: pd.Timestamp, end_date: pd.Timestamp, assets: Any
    ) -> list[np.ndarray]:
        """Fields of assets from a date to another."""
        rows = self.sessions.slice_indexer(start_date, end_date)
        return [self._values[column][rows][:, [int(asset) for asset in assets]] for column in columns]


def portal(
    opens: Float64[np.ndarray, "T N"],
    closes: Float64[np.ndarray, "T N"],
    dates: pd.DatetimeIndex,
    assets: tuple[str, ...],
) -> DataPortal:
    """Bars of assets, whose sids are 0 to N - 1 and whose `asset_name` is their own, as zipline asks for them."""
    engine = create_engine("sqlite://")
    # zipline's symbols are alike in upper and lower case, and end at a dot or a stroke.
    symbols = [f"Q{sid}" for sid in range(len(assets))]
    listed = pd.DataFrame({"symbol": symbols, "asset_name": list(assets), "exchange": "qtorch"})
    listed["start_date"], listed["end_date"] = dates[0], dates[-1] + pd.Timedelta(days=7)  # sold by orders alone
    AssetDBWriter(engine).write(equities=listed, exchanges=pd.DataFrame({"exchange": ["qtorch"], "country_code": "??"}))
    calendar = UnionCalendar(dates)
    return DataPortal(AssetFinder(engine), calendar, dates[0], equity_daily_reader=Bars(opens, closes, dates, calendar))
