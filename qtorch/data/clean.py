"""Reads prices as users have them and finds the rows that cannot be right."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from qtorch.data.calendars import Sessions
from qtorch.data.errors import DataError, listing, name_rows

PRICES = ("open", "high", "low", "close")
FIELDS = (*PRICES, "volume")


def read_parquet(path: str | Path, start: str | pd.Timestamp | None, end: str | pd.Timestamp | None) -> pd.DataFrame:
    """The price columns of a Parquet file or dataset, between two dates, inclusive.

    Raises:
        DataError: there is no such file, it is not readable Parquet, or it lacks a column.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    if not Path(path).exists():
        raise DataError(f"{path}: no such file or folder.")
    try:
        dataset = ds.dataset(path, partitioning="hive")
        wanted = ("date", "asset", "exchange", *FIELDS)
        columns = [name for name in wanted if name in dataset.schema.names]
        if "date" not in columns:
            raise DataError(f"{path}: no column 'date'; its columns are {listing(dataset.schema.names, most=20)}.")
        kind = dataset.schema.field("date").type
        condition = None
        for bound, compare in ((start, "__ge__"), (end, "__le__")):
            if bound is not None:
                test = getattr(ds.field("date"), compare)(pa.scalar(pd.Timestamp(bound)).cast(kind))
                condition = test if condition is None else condition & test
        frame = dataset.to_table(columns=columns, filter=condition).to_pandas(date_as_object=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}). Write or copy it again.") from error
    return frame


def clean(
    frame: pd.DataFrame, exchange: str | Mapping[str, str] | None, bad_rows: Literal["raise", "quarantine"]
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    """Brings a frame of any accepted layout to usable long rows.

    Returns:
        The rows (date, asset, exchange, the fields, and `row`, the position in the user's frame) that hold a close,
        sorted by asset and date; the names of the fields; and the findings.

    Raises:
        DataError: see `qtorch.data.Panel.from_frame`.
    """
    if bad_rows not in ("raise", "quarantine"):
        raise DataError(f"bad_rows={bad_rows!r} is neither 'raise' nor 'quarantine'.")
    if frame.empty:
        raise DataError("the frame is empty: no row to build a panel from.")
    rows = _long(frame)
    fields = [name for name in FIELDS if name in rows]
    rows["asset"] = _names(rows)
    rows["exchange"] = _exchanges(rows, exchange)
    raw = rows.copy()
    rows["date"] = _dates(rows)
    for name in fields:
        rows[name] = pd.to_numeric(rows[name], errors="coerce").astype("float64")

    findings = []

    def refuse(bad: pd.Series, what: str, remedy: str) -> None:
        """Raises for bad rows, or takes them out and notes each."""
        nonlocal rows
        if not bad.any():
            return
        named = rows[bad].assign(date=rows["date"].where(rows["date"].notna(), raw.loc[rows.index, "date"]))
        if bad_rows == "raise":
            raise DataError(f"{what}: {name_rows(named)}. {remedy}, or pass bad_rows='quarantine' to leave them out.")
        findings.append(finding("refused", named.assign(detail=what)))
        rows = rows[~bad]

    refuse(rows["date"].isna(), "date missing or unreadable", "Give each row a date such as 2020-01-31")
    for name in fields:
        text = rows[name].isna() & raw.loc[rows.index, name].notna()
        refuse(text, f"text in {name}", f"Make {name} numeric, empty where there is none")
        value = rows[name]
        wrong = np.isinf(value) | ((value <= 0) if name in PRICES else (value < 0))
        refuse(wrong, f"{name} {'not positive or ' if name in PRICES else 'negative or '}infinite", "Correct them")
    refuse(
        rows.duplicated(["date", "asset"], keep=False),
        "more than one row for a date and asset",
        "Keep one of each",
    )
    backwards = rows.groupby("asset", sort=False)["date"].diff() < pd.Timedelta(0)
    if backwards.any() and bad_rows == "raise":
        raise DataError(
            f"dates out of order: {name_rows(rows[backwards])}. "
            "Sort with frame.sort_values(['asset', 'date']), or pass bad_rows='quarantine' to have it sorted."
        )
    findings.append(finding("sorted", rows[backwards].assign(detail="its date was before the row's above")))
    rows = rows[rows["close"].notna()].sort_values(["asset", "date"], kind="stable", ignore_index=True)
    if rows.empty:
        raise DataError("no row holds a close: nothing to build a panel from.")
    return rows, fields, pd.concat(findings, ignore_index=True)


def off_calendar(
    rows: pd.DataFrame, calendars: Mapping[str, Sessions], policy: Literal["keep", "drop", "raise"]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Finds prices on days on which their exchange has no session, and treats them by policy."""
    if policy not in ("keep", "drop", "raise"):
        raise DataError(f"off_calendar={policy!r} is none of 'keep', 'drop', 'raise'.")
    stray = pd.Series(False, index=rows.index)
    for code, calendar in calendars.items():
        of = rows["exchange"] == code
        stray |= of & ~rows["date"].isin(calendar.days)
    if stray.any() and policy == "raise":
        raise DataError(
            f"prices on days on which the exchange is closed: {name_rows(rows[stray])}. "
            "Correct the exchange code or the dates, or pass off_calendar='keep' or 'drop'."
        )
    detail = "a price on a day on which the exchange is closed, " + ("dropped" if policy == "drop" else "kept")
    if policy == "drop" and stray.all():
        raise DataError("every price is on a day on which its exchange is closed. Correct the exchange codes.")
    return (rows[~stray] if policy == "drop" else rows), finding("off_calendar", rows[stray].assign(detail=detail))


def finding(kind: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Findings in the form of `Panel.findings`."""
    return rows.assign(kind=kind)[["kind", "asset", "date", "row", "detail"]]


def _long(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of the frame in long layout, its index gone."""
    if isinstance(frame.index, pd.MultiIndex):
        names = list(frame.index.names)
        if names[:2] not in (["date", "asset"], ["datetime", "instrument"]):
            raise DataError(f"a MultiIndex must be (date, asset), not {names}.")
        frame = frame.rename_axis(["date", "asset"]).reset_index()
    elif isinstance(frame.index, pd.DatetimeIndex) and "close" not in frame.columns:
        wide = frame.rename_axis(index="date", columns="asset")
        frame = wide.melt(ignore_index=False, value_name="close").reset_index()
        return frame.assign(row=np.tile(np.arange(len(wide)), wide.shape[1]))
    missing = [name for name in ("date", "asset", "close") if name not in frame]
    if missing:
        raise DataError(f"no column {listing(map(repr, missing))}; the frame has {listing(frame.columns, most=20)}.")
    return frame.reset_index(drop=True).assign(row=np.arange(len(frame)))


def _names(rows: pd.DataFrame) -> pd.Series:
    absent = rows["asset"].isna()
    if absent.any():
        raise DataError(f"no asset name: {name_rows(rows[absent])}. Name the asset of every row.")
    return rows["asset"].astype("str")


def _dates(rows: pd.DataFrame) -> pd.Series:
    dates = pd.to_datetime(rows["date"], errors="coerce")
    if dates.dt.tz is not None:
        raise DataError(
            f"dates carry the time zone {dates.dt.tz}. Pass tz-naive session labels: "
            "frame['date'].dt.tz_localize(None).dt.normalize(), after checking that they fall on the right day."
        )
    timed = dates.notna() & (dates != dates.dt.normalize())
    if timed.any():
        raise DataError(f"dates with a time of day: {name_rows(rows[timed])}. Pass session labels (midnight).")
    return dates.astype("datetime64[us]")


def _exchanges(rows: pd.DataFrame, exchange: str | Mapping[str, str] | None) -> pd.Series:
    if exchange is None:
        if "exchange" not in rows:
            raise DataError("no column 'exchange'. Add one with the exchange's code (MIC), or pass exchange=...")
        codes = rows["exchange"]
    elif isinstance(exchange, str):
        codes = pd.Series(exchange, index=rows.index)
    else:
        codes = rows["asset"].map(exchange)
    absent = codes.isna()
    if absent.any():
        raise DataError(f"no exchange code: {name_rows(rows[absent])}. Give one for every asset.")
    codes = codes.astype("str")
    several = codes.groupby(rows["asset"]).nunique()
    if (several > 1).any():
        raise DataError(
            f"more than one exchange for {listing(several.index[several > 1])}. Give each listing its own asset name."
        )
    return codes
