"""Finds the rows of prices that cannot be right, and refuses them or sets them aside."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from qtorch.data.errors import DataError, listing, name_rows
from qtorch.data.rows import ACTIONS, FIELDS, PRICES

BadRows = Literal["raise", "quarantine"]
_POSITIVE = {*PRICES, "adj_close"}
_NOT_NEGATIVE = {*FIELDS, *ACTIONS}
_NUMBERS = "pd.to_datetime(frame['date'].astype('int').astype('str'), format='%Y%m%d'), where they read 20200131"
_NO_DATES = {
    "integer": _NUMBERS,
    "floating": _NUMBERS,
    "mixed-integer": _NUMBERS,
    "mixed-integer-float": _NUMBERS,
    "period": "frame['date'].dt.to_timestamp()",
}  # what pandas infers, and the remedy


def usable(
    chunk: pd.DataFrame, fields: Sequence[str], exchange: str | Mapping[Any, str] | None, bad_rows: BadRows
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a chunk that can be right.

    Args:
        chunk: as of `qtorch.data.rows.Rows`.
        fields: the numeric columns.
        exchange: the exchange code of all assets or of each; None takes the chunk's column.
        bad_rows: raise for rows that cannot be right, or leave them out and note each.

    Returns:
        The rows: `date` (datetime64[us]), `asset` and `exchange` (categories), the fields in float64, `known_at` (UTC)
        if there is one, and `row`; and the findings.

    Raises:
        DataError: see `qtorch.data.Panel.from_frame`.
    """
    rows = pd.DataFrame({"row": chunk["row"].to_numpy()})
    raw = chunk.reset_index(drop=True)
    rows["asset"] = _names(raw)
    rows["exchange"] = _exchanges(rows["asset"], raw, exchange)
    rows["date"] = _dates(raw)
    if "known_at" in raw:
        rows["known_at"] = _instants(raw)
    for name in fields:
        rows[name] = pd.to_numeric(raw[name], errors="coerce").astype("float64")
    findings = []

    def refuse(bad: pd.Series, what: str, remedy: str) -> None:
        """Raises for bad rows, or takes them out and notes each."""
        nonlocal rows
        if not bad.any():
            return
        named = rows[bad].assign(date=rows["date"].where(rows["date"].notna(), raw["date"]))
        if bad_rows == "raise":
            raise DataError(f"{what}: {name_rows(named)}. {remedy}, or pass bad_rows='quarantine' to leave them out.")
        findings.append(finding("refused", named.assign(detail=what)))
        rows = rows[~bad]

    refuse(rows["date"].isna(), "date missing or unreadable", "Give each row a date such as 2020-01-31")
    for name in fields:
        unread = rows[name].isna() & raw.loc[rows.index, name].notna()
        refuse(unread, f"text in {name}", f"Make {name} numeric, empty where there is none")
        value = rows[name]
        if name in _POSITIVE:
            refuse(np.isinf(value) | (value <= 0), f"{name} not positive or infinite", "Correct them")
        elif name in _NOT_NEGATIVE:
            refuse(np.isinf(value) | (value < 0), f"{name} negative or infinite", "Correct them")
        else:
            refuse(np.isinf(value), f"{name} infinite", "Correct them")
    return rows, pd.concat(findings, ignore_index=True) if findings else no_findings()


def finding(kind: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Findings in the form of `Panel.findings`."""
    return rows.assign(kind=kind, asset=rows["asset"].astype("str"))[["kind", "asset", "date", "row", "detail"]]


def no_findings() -> pd.DataFrame:
    """An empty table of findings."""
    columns = {"kind": "str", "asset": "str", "date": "datetime64[us]", "row": "int64", "detail": "str"}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})


def _names(raw: pd.DataFrame) -> pd.Series:
    names = raw["asset"]
    if names.isna().any():
        raise DataError(f"no asset name: {name_rows(raw[names.isna()])}. Name the asset of every row.")
    return _text(names)


def _text(values: pd.Series) -> pd.Series:
    """Categories of text; values of one text, such as 1 and "1", are the same."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        texts = list(map(str, values.cat.categories))
        if len(set(texts)) == len(texts):
            return values.cat.rename_categories(texts)
    return values.astype("str").astype("category")


def _dates(raw: pd.DataFrame) -> pd.Series:
    kind = pd.api.types.infer_dtype(raw["date"])
    if kind in _NO_DATES:
        raise DataError(f"dates are {kind}, not dates: {name_rows(raw)}. Pass {_NO_DATES[kind]}.")
    try:
        known = pd.api.types.is_datetime64_any_dtype(raw["date"])  # a cast that is none costs as much as a parse
        dates = raw["date"] if known else pd.to_datetime(raw["date"], errors="coerce")
    except ValueError as error:  # texts of several time zones, which pandas does not make missing
        raise DataError(f"dates cannot be read: {error} Pass session labels without a time zone.") from error
    if not pd.api.types.is_datetime64_any_dtype(dates):  # what pandas 2 makes of such texts
        raise DataError("dates cannot be read: Mixed timezones. Pass session labels without a time zone.")
    if dates.dt.tz is not None:
        raise DataError(
            f"dates carry the time zone {dates.dt.tz}. Pass tz-naive session labels: "
            "frame['date'].dt.tz_localize(None).dt.normalize(), after checking that they fall on the right day."
        )
    timed = dates.notna() & (dates != dates.dt.normalize())
    if timed.any():
        raise DataError(f"dates with a time of day: {name_rows(raw[timed])}. Pass session labels (midnight).")
    return dates.astype("datetime64[us]")


def _instants(raw: pd.DataFrame) -> pd.Series:
    known = raw["known_at"].infer_objects()  # pandas 2 makes objects of instants of two units
    if not isinstance(known.dtype, pd.DatetimeTZDtype):
        raise DataError(
            f"known_at is {known.dtype}, not instants with a time zone. Pass for example "
            "pd.to_datetime(frame['known_at'], utc=True)."
        )
    if known.isna().any():
        raise DataError(f"no known_at: {name_rows(raw[known.isna()])}. Give an instant for every row.")
    return known.dt.tz_convert("UTC").astype("datetime64[us, UTC]")


def _exchanges(assets: pd.Series, raw: pd.DataFrame, exchange: str | Mapping[Any, str] | None) -> pd.Series:
    """The exchange code of each row, as categories."""
    if exchange is None:
        if "exchange" not in raw:
            raise DataError("no column 'exchange'. Add one with the exchange's code (MIC), or pass exchange=...")
        codes = raw["exchange"]
    elif isinstance(exchange, str):
        return pd.Series(pd.Categorical([exchange]).take(np.zeros(len(assets), dtype=np.int64)))
    else:
        named = {str(asset): code for asset, code in exchange.items()}
        codes = pd.Series(assets.cat.categories.map(named).to_numpy()[assets.cat.codes])
    if codes.isna().any():
        raise DataError(f"no exchange code: {name_rows(raw[codes.isna()])}. Give one for every asset.")
    return _text(codes)


def one_exchange(assets: Sequence[str], several: np.ndarray) -> None:
    """Refuses assets that have more than one exchange.

    Raises:
        DataError: there are some.
    """
    if several.any():
        names = listing(np.array(assets, dtype=object)[several])
        raise DataError(f"more than one exchange for {names}. Give each listing its own asset name.")
