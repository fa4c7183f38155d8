"""Panels from and to the frames of other libraries: pandas, qlib, xarray, Arrow and polars, GluonTS, NeuralForecast.

What each format cannot hold, and a panel loses on the way out:

| format | loses |
|---|---|
| all | `findings`, `delisted`, and the instants of prices known later than their session's close (`known_at`) |
| long, MultiIndex, qlib, Arrow | the states of cells without a price, which come back from the calendars; assets without any price |
| wide | the exchanges, the states, the fields but one |
| xarray | nothing more |
| GluonTS | why a value is absent (closed, missing or unlisted are NaN), the fields but one |
| NeuralForecast | the same (all are 0 under a mask of 0), and which session a row's value is of |

A panel as of an instant before some closes holds sessions of an earlier date in row t. Long, MultiIndex, qlib, Arrow and
GluonTS frames are therefore labelled by *session*, so that `Panel.from_frame`, given the same `as_of` (and `delisted`, and
in `fields` those beyond the usual), puts each price back into its row. What the panel had left out cannot come back: a
session superseded at the same as-of; and at either end, a row that holds only sessions of dates before or after it.
"""  # noqa: E501 - a table's row is one line

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from qtorch.data.calendars import NO_SESSION, dates_of
from qtorch.data.errors import DataError, listing
from qtorch.data.panel import Panel
from qtorch.data.rows import ACTIONS, FIELDS
from qtorch.data.states import State

if TYPE_CHECKING:
    import pyarrow
    import xarray


def to_long(
    panel: Panel, *, layout: Literal["long", "multiindex", "qlib"] = "long", with_as_of: bool = False
) -> pd.DataFrame:
    """One row per price: its session, asset, exchange code and fields; the inverse of `Panel.from_frame`.

    Args:
        panel: `T` dates, `N` assets.
        layout: ``"long"``, columns throughout, sorted by asset (in the panel's order) and date; ``"multiindex"``,
            indexed by (date, asset) and sorted by them; ``"qlib"``, the same with qlib's names (datetime, instrument).
        with_as_of: adds where the panel holds the price: `row_date`, the label of its row, and `as_of`, the
            instant (UTC) up to which that row knows the world.

    Returns:
        Columns `date` (the label of the session whose close it is), `asset`, `exchange`, and the panel's fields in
        float64, NaN where a field is not known; as many rows as the panel has observed cells.

    Raises:
        DataError: an unknown layout.

    Example:
        >>> closes = pd.DataFrame({"EWJ": [63.7, 63.2]}, index=pd.to_datetime(["2021-12-02", "2021-12-03"]))
        >>> to_long(Panel.from_frame(closes, exchange="XNYS"))
                date asset exchange  close
        0 2021-12-02   EWJ     XNYS   63.7
        1 2021-12-03   EWJ     XNYS   63.2
    """
    index = {"long": None, "multiindex": ["date", "asset"], "qlib": ["datetime", "instrument"]}
    if layout not in index:
        raise DataError(f"layout={layout!r} is none of {listing(map(repr, index))}.")
    n, t = np.nonzero(panel.mask.cpu().numpy().T)
    values = panel.values.cpu().numpy()[t, n]
    frame = pd.DataFrame(
        {
            "date": _sessions(panel)[t, n],
            "asset": pd.array(np.array(panel.assets, dtype=object)[n], dtype="str"),
            "exchange": pd.array(np.array(panel.exchanges, dtype=object)[n], dtype="str"),
            **{name: values[:, i] for i, name in enumerate(panel.fields)},
        }
    )
    if with_as_of:
        frame = frame.assign(row_date=panel.dates[t], as_of=panel.as_of[t])
    names = index[layout]
    return frame if names is None else frame.set_index(["date", "asset"]).rename_axis(names).sort_index()


def to_wide(panel: Panel, field: str = "close", *, by: Literal["session", "row"] = "session") -> pd.DataFrame:
    """Dates by assets, NaN where nothing is observed.

    Args:
        panel: `T` dates, `N` assets.
        field: a field of the panel, or ``"return"`` for simple returns (decimals, over closed days).
        by: ``"session"`` puts a value at the label of its session, as `Panel.from_frame` reads it; ``"row"`` at the
            panel's own row, side by side with what is known at the same instant. The two differ only where a panel's
            as-of is before some closes.

    Raises:
        DataError: the panel has no such field; an unknown `by`.

    Example:
        >>> closes = pd.DataFrame({"EWJ": [50.0, 51.0]}, index=pd.to_datetime(["2021-12-02", "2021-12-03"]))
        >>> to_wide(Panel.from_frame(closes, exchange="XNYS"), "return")
        asset        EWJ
        date
        2021-12-02   NaN
        2021-12-03  0.02
    """
    if by not in ("session", "row"):
        raise DataError(f"by={by!r} is neither 'session' nor 'row'.")
    values, dates = _field(panel, field), panel.dates
    if by == "session":
        t, n = np.nonzero(panel.mask.cpu().numpy())
        held, day = values[t, n], pd.DatetimeIndex(_sessions(panel)[t, n])
        dates = dates.union(day.unique())  # an as-of late in the day knows a close of the next date, further east
        values = np.full((len(dates), len(panel.assets)), np.nan)
        values[dates.get_indexer(day), n] = held
    return pd.DataFrame(values, index=dates.rename("date"), columns=pd.Index(panel.assets, name="asset", dtype="str"))


def to_arrow(panel: Panel, *, with_as_of: bool = False) -> pyarrow.Table:
    """The long frame as an Arrow table, which polars (``pl.from_arrow``), duckdb and others read without a copy.

    Args:
        panel: `T` dates, `N` assets.
        with_as_of: as of `to_long`.

    Returns:
        The columns of `to_long`; dates are date32, for a session's label has neither a time nor a zone.

    Example:
        >>> closes = pd.DataFrame({"EWJ": [63.7, 63.2]}, index=pd.to_datetime(["2021-12-02", "2021-12-03"]))
        >>> to_arrow(Panel.from_frame(closes, exchange="XNYS")).column("date").to_pylist()
        [datetime.date(2021, 12, 2), datetime.date(2021, 12, 3)]
    """
    import pyarrow as pa

    table = pa.Table.from_pandas(to_long(panel, with_as_of=with_as_of), preserve_index=False)
    kinds = [
        field.with_type(pa.date32()) if field.name in ("date", "row_date") else field.with_type(_plain(field.type))
        for field in table.schema
    ]
    return table.cast(pa.schema(kinds))


def from_arrow(table: Any, **options: Any) -> Panel:
    """Builds a panel from a polars DataFrame, a pyarrow Table, a duckdb relation, or what else speaks Arrow.

    Args:
        table: anything with Arrow's PyCapsule interface (``__arrow_c_stream__``). Columns as of `Panel.from_frame`,
            or qlib's names (datetime, instrument), or a `date` and one column of closes per asset. Decimals
            become float64. Where `to_arrow` wrote the rows too, prices are checked to come to lie in them.
        **options: as of `Panel.from_frame`.

    Raises:
        DataError: not an Arrow table; `Panel.from_frame` refuses its rows; the table's rows are of another as-of.
    """
    import pyarrow as pa

    if not hasattr(table, "__arrow_c_stream__"):
        raise DataError(
            f"a {type(table).__name__} is not an Arrow table (it has no __arrow_c_stream__). Pass a polars DataFrame "
            "(a LazyFrame's collect()), a pyarrow Table or a duckdb relation; for pandas see Panel.from_frame."
        )
    arrow = pa.table(table)
    arrow = arrow.cast(pa.schema([field.with_type(_plain(field.type)) for field in arrow.schema]))
    frame = arrow.to_pandas(date_as_object=False)
    if {"datetime", "instrument"} <= set(frame.columns):
        frame = frame.set_index(["datetime", "instrument"])
    elif "date" in frame and not {"asset", "close"} & set(frame.columns):
        frame = frame.set_index(pd.DatetimeIndex(pd.to_datetime(frame["date"]))).drop(columns="date")
    return _build(frame, options)


def to_xarray(panel: Panel) -> xarray.Dataset:
    """A dataset over (date, asset), with a variable per field, the states and the sessions.

    Args:
        panel: `T` dates, `N` assets.

    Returns:
        Variables `[T, N]`: the fields, NaN where nothing is observed; `state`, with CF's flag attributes; `session`,
        the label of the session whose close a cell holds, NaT where none. Coordinates: `exchange` of each asset and
        `as_of` of each date, in UTC (xarray's times carry no zone).

    Raises:
        ImportError: xarray is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise ImportError(
            "to_xarray needs xarray, which is not installed: pip install 'qtorch-finance[interchange]'."
        ) from error

    axes = ("date", "asset")
    values = panel.values.cpu().numpy()
    flags = {
        "flag_values": np.array(list(State), dtype=np.uint8),
        "flag_meanings": " ".join(state.name.lower() for state in State),
    }
    return xarray.Dataset(
        {
            **{name: (axes, values[:, :, i].copy()) for i, name in enumerate(panel.fields)},  # a dataset is mutable
            "state": (axes, panel.state.cpu().numpy().copy(), flags),
            "session": (axes, _sessions(panel)),
        },
        coords={
            "date": panel.dates.to_numpy(),
            "asset": list(panel.assets),
            "exchange": ("asset", list(panel.exchanges)),
            "as_of": ("date", panel.as_of.tz_localize(None).to_numpy(), {"time_zone": "UTC"}),
        },
    )


def from_xarray(dataset: xarray.Dataset, **options: Any) -> Panel:
    """Builds a panel from a dataset over (date, asset), such as `to_xarray` gives.

    Args:
        dataset: variable `close` and optional others, of any name, over `date` and `asset`; a coordinate
            `exchange` along `asset`, unless the option is given. A variable `session` says of which session a
            cell's close is; without it, of its date's. States are built anew from the calendars.
        **options: as of `Panel.from_frame`.

    Raises:
        DataError: a dimension or the closes are absent; `Panel.from_frame` refuses the prices; the dataset's rows are
            of another as-of.
    """
    axes = {"date", "asset"}
    absent = sorted(axes - set(dataset.dims))
    if absent or "close" not in dataset:
        raise DataError(
            f"the dataset has dimensions {listing(dataset.dims)} and variables {listing(dataset.data_vars, most=20)}, "
            "where (date, asset) and 'close' are needed. Rename them: dataset.rename(time='date', symbol='asset')."
        )
    names = [str(name) for name, variable in dataset.data_vars.items() if set(variable.dims) == axes]
    if "close" not in names:
        raise DataError(f"'close' is over {listing(dataset['close'].dims)}, where (date, asset) is needed.")
    held = dataset[[name for name in names if name != "state"]].drop_vars("as_of", errors="ignore")
    frame = held.to_dataframe(dim_order=["asset", "date"]).dropna(subset="close").reset_index()
    if "session" in frame:
        frame = frame.rename(columns={"date": "row_date", "session": "date"})
    usual = {"state", "session", *FIELDS, *ACTIONS}
    options = {"fields": [name for name in names if name not in usual], **options}
    return _build(frame.sort_values(["asset", "date"], ignore_index=True), options)


def to_gluonts(panel: Panel, field: str = "return", *, freq: Literal["B", "D"] | None = None) -> pd.DataFrame:
    """A long frame for GluonTS, each asset on every period from its first to its last value.

    GluonTS knows no exchange calendars: it wants regular periods, and reads NaN as not observed. So closed and missing
    days are NaN::

        frame = panel.to_gluonts()
        dataset = PandasDataset.from_long_dataframe(
            frame, item_id="item_id", timestamp="timestamp", freq=frame.attrs["freq"],
            static_feature_columns=["exchange"],
        )

    GluonTS 0.17 asks for pandas below 3 and this library for pandas 3: where they cannot share an environment, the
    frame goes across as Parquet, which keeps all of it, `attrs` included.

    Args:
        panel: `T` dates, `N` assets.
        field: a field of the panel, or ``"return"`` for simple returns (decimals, over closed days).
        freq: ``"B"``, weekdays; ``"D"``, all days; None chooses weekdays if no value is of a weekend (Tel Aviv's and
            Riyadh's Sundays, cryptocurrencies).

    Returns:
        Columns `item_id` (the asset), `timestamp` (the session's label), `target` (float32: some of GluonTS' models
        fail on float64) and `exchange` (categorical, hence a static category), by asset and date; an asset without a
        value has no rows. ``attrs["freq"]`` is the frequency.

    Raises:
        DataError: the panel has no such field or no value; ``freq="B"`` though there are values of a weekend.

    Example:
        >>> days = pd.to_datetime(["2019-07-02", "2019-07-03", "2019-07-05"])
        >>> to_gluonts(Panel.from_frame(pd.DataFrame({"SPY": [1.0, 2.0, 3.0]}, index=days), exchange="XNYS"), "close")
          item_id  timestamp  target exchange
        0     SPY 2019-07-02     1.0     XNYS
        1     SPY 2019-07-03     2.0     XNYS
        2     SPY 2019-07-04     NaN     XNYS
        3     SPY 2019-07-05     3.0     XNYS
    """
    values = _field(panel, field)
    days = _sessions(panel).astype("M8[D]")
    known = ~np.isnan(values)
    if not known.any():
        raise DataError(f"no {field} is observed in this panel: nothing to export.")
    weekend = known & ~np.is_busday(np.where(known, days, np.datetime64(0, "D")))
    if freq is None:
        freq = "D" if weekend.any() else "B"
    elif freq not in ("B", "D"):
        raise DataError(f"freq={freq!r} is neither 'B' nor 'D'.")
    elif freq == "B" and weekend.any():
        named = [f"{panel.assets[n]} {days[t, n]}" for t, n in np.argwhere(weekend)]
        raise DataError(f"values of weekends, which freq='B' cannot hold: {listing(named)}. Pass freq='D'.")
    week = "1111100" if freq == "B" else "1111111"

    parts = []
    for n in np.flatnonzero(known.any(axis=0)):
        own = days[known[:, n], n]
        at = np.busday_count(own[0], own, weekmask=week)
        target = np.full(at[-1] + 1, np.nan, dtype=np.float32)
        target[at] = values[known[:, n], n]
        stamps = np.busday_offset(own[0], np.arange(len(target)), weekmask=week)
        part = {"item_id": panel.assets[n], "timestamp": stamps.astype("M8[us]"), "target": target}
        parts.append(pd.DataFrame(part).assign(exchange=panel.exchanges[n]))
    frame = pd.concat(parts, ignore_index=True).astype({"item_id": "str", "exchange": "category"})
    frame.attrs["freq"] = freq
    return frame


def to_neuralforecast(
    panel: Panel, field: str = "return", *, fill: Literal["zero", "previous"] = "zero"
) -> pd.DataFrame:
    """A long frame for NeuralForecast: every asset has every row of the panel, so that multivariate models stand right.

    NeuralForecast refuses NaN; a column `available_mask` says which values are real, and its losses, its window scalers
    and its choice of training windows heed it. But a model also *sees* the filler in the masked places: 0 is a fair
    return for a closed day and an absurd price, so ask for ``fill="previous"`` with prices.

    `cross_validation` gives back the filler as `y`: score only rows that are available. The frequency to give
    NeuralForecast only labels its forecasts: ``freq="B"``, or ``"D"`` with weekend sessions.

    Args:
        panel: `T` dates, `N` assets.
        field: a field of the panel, or ``"return"`` for simple returns (decimals, over closed days).
        fill: what `y` is where nothing is observed: 0, or the asset's previous value (0 before its first).

    Returns:
        `T * N` rows, by asset and date: `unique_id` (the asset), `ds` (the panel's date: what the row knows at its
        as-of, even if a session before), `y` (float64), `available_mask` (1 where observed, else 0).

    Raises:
        DataError: the panel has no such field; an unknown `fill`.

    Example:
        >>> closes = pd.DataFrame({"EWJ": [50.0, 51.0]}, index=pd.to_datetime(["2021-12-02", "2021-12-03"]))
        >>> to_neuralforecast(Panel.from_frame(closes, exchange="XNYS"))
          unique_id         ds     y  available_mask
        0       EWJ 2021-12-02  0.00               0
        1       EWJ 2021-12-03  0.02               1
    """
    if fill not in ("zero", "previous"):
        raise DataError(f"fill={fill!r} is neither 'zero' nor 'previous'.")
    values = pd.DataFrame(_field(panel, field))
    known = values.notna().to_numpy()
    filled = (values.ffill() if fill == "previous" else values).fillna(0.0).to_numpy()
    T, N = known.shape
    return pd.DataFrame(
        {
            "unique_id": pd.array(np.repeat(np.array(panel.assets, dtype=object), T), dtype="str"),
            "ds": np.tile(panel.dates.to_numpy(), N),
            "y": filled.T.ravel(),
            "available_mask": known.T.ravel().astype(np.int8),
        }
    )


def _field(panel: Panel, field: str) -> np.ndarray:
    """A field's values or the returns, `[T, N]` in float64."""
    return (panel.returns() if field == "return" else panel.field(field)).cpu().numpy()


def _sessions(panel: Panel) -> np.ndarray:
    """The label of the session whose close a cell holds, `[T, N]`; NaT where none."""
    day = panel.session_day.cpu().numpy().astype(np.int64)
    return np.where(day == NO_SESSION, np.datetime64("NaT", "us"), dates_of(day))


def _plain(kind: Any) -> Any:
    """The Arrow type that pandas reads as numbers: float64 for decimals and for columns without a value."""
    import pyarrow as pa

    return pa.float64() if pa.types.is_decimal(kind) or pa.types.is_null(kind) else kind


def _build(frame: pd.DataFrame, options: dict[str, Any]) -> Panel:
    """`Panel.from_frame`, and a check that prices which name their row came to lie in it."""
    panel = Panel.from_frame(frame, **options)
    if "row_date" not in frame:
        return panel
    keys, kinds = ["date", "asset"], {"date": "datetime64[us]", "asset": "str", "row_date": "datetime64[us]"}
    given = frame[frame["close"].notna()].astype(kinds)
    both = given.merge(to_long(panel, with_as_of=True), on=keys, suffixes=("", "_built"))
    moved = both[(both["row_date"] != both["row_date_built"]) & both["row_date"].isin(panel.dates)]
    if len(moved):
        first = moved.iloc[0]
        raise DataError(
            f"{len(moved)} of {len(given)} prices come to lie in another row than they had: {first['asset']} "
            f"{first['date']:%Y-%m-%d}, in row {first['row_date']:%Y-%m-%d} of the data, is in row "
            f"{first['row_date_built']:%Y-%m-%d} at as_of={options.get('as_of')!r}. Pass the as_of that the data were "
            "made with; prices known later than their close need a column known_at in Panel.from_frame."
        )
    return panel
