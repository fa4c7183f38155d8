import datetime
import decimal
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config

from qtorch.data import DataError, Panel, State, sessions
from qtorch.data.calendars import Calendar
from qtorch.data.interchange import (
    from_arrow,
    from_xarray,
    to_arrow,
    to_gluonts,
    to_long,
    to_neuralforecast,
    to_wide,
    to_xarray,
)
from tests.conftest import make_prices

LONDON = "16:30 Europe/London"
CLOSES = {
    "EAST": ("15:00", "Asia/Tokyo", "Mon Tue Wed Thu Fri"),
    "SUN": ("17:15", "Asia/Jerusalem", "Sun Mon Tue Wed Thu"),
    "MID": ("16:30", "Europe/London", "Mon Tue Wed Thu Fri"),
    "WEST": ("16:00", "America/New_York", "Mon Tue Wed Thu Fri"),
}
ASSETS = {"A": "WEST", "B": "EAST", "C": "SUN", "D": "MID", "E": "WEST", "F": "EAST"}
DAYS = pd.date_range("2021-03-01", "2021-04-09", unit="us")  # over the changes to summer time
SEEDS = st.integers(0, 2**31)
INSTANTS = st.sampled_from([LONDON, "12:00 Asia/Tokyo", "13:30 America/New_York"])


def market(seed: int, strays: float = 0.3) -> tuple[pd.DataFrame, list[Calendar]]:
    """Random holidays, early closes, listings and gaps, and now and then a price on a closed day."""
    rng = np.random.default_rng(seed)
    calendars = []
    for code, (close, zone, weekdays) in CLOSES.items():
        holidays, early = (tuple(rng.choice(DAYS, rng.integers(5), replace=False)) for _ in range(2))
        early = [day for day in pd.DatetimeIndex(early).difference(holidays) if f"{day:%a}" in weekdays]
        early_closes = {f"{day:%Y-%m-%d}": "12:30" for day in early}
        calendars.append(Calendar(code, close, zone, weekdays, tuple(pd.DatetimeIndex(holidays)), early_closes))
    open_days = {calendar.code: sessions(calendar, DAYS[0], DAYS[-1]).days for calendar in calendars}
    parts = []
    for asset in rng.choice(list(ASSETS), rng.integers(1, 1 + len(ASSETS)), replace=False):
        days = open_days[ASSETS[asset]]
        days = days[(days >= DAYS[rng.integers(15)]) & (days <= DAYS[-1 - rng.integers(15)])]
        days = days[(rng.random(len(days)) < rng.random()) | (np.arange(len(days)) < 3)]
        if rng.random() < strays:
            days = days.union([days[0] + pd.Timedelta(days=rng.integers(1, 7))])
        close = np.exp(rng.standard_normal(len(days)))
        volume = np.where(rng.random(len(days)) < 0.1, np.nan, close * 1e6)
        part = {"date": days, "asset": asset, "exchange": ASSETS[asset], "close": close, "volume": volume}
        parts.append(pd.DataFrame(part))
    return pd.concat(parts).sort_values(["asset", "date"], ignore_index=True), calendars


def assert_same(one: Panel, other: Panel) -> None:
    for name in ("assets", "fields", "exchanges"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("dates", "as_of"):
        assert list(getattr(one, name)) == list(getattr(other, name))
    assert torch.equal(one.state, other.state)
    assert torch.equal(one.session_day, other.session_day)
    torch.testing.assert_close(one.values, other.values, rtol=0, atol=0, equal_nan=True)


ROUND_TRIPS = {
    "long": lambda panel, **options: Panel.from_frame(to_long(panel), **options),
    "multiindex": lambda panel, **options: Panel.from_frame(to_long(panel, layout="multiindex"), **options),
    "qlib": lambda panel, **options: Panel.from_frame(to_long(panel, layout="qlib"), **options),
    "arrow": lambda panel, **options: from_arrow(to_arrow(panel, with_as_of=True), **options),
}
if find_spec("xarray"):
    ROUND_TRIPS["xarray"] = lambda panel, **options: from_xarray(to_xarray(panel), **options)
if find_spec("polars"):
    ROUND_TRIPS["polars"] = lambda panel, **options: from_arrow(
        pytest.importorskip("polars").from_arrow(to_arrow(panel)), **options
    )


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, layout=st.sampled_from(sorted(ROUND_TRIPS)))
def test_a_panel_comes_back_as_it_was(seed, layout):
    frame, calendars = market(seed)
    panel = Panel.from_frame(frame, calendars=calendars)
    assert_same(ROUND_TRIPS[layout](panel, calendars=calendars), panel)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, layout=st.sampled_from(sorted(ROUND_TRIPS)), as_of=INSTANTS)
def test_a_panel_of_an_earlier_instant_comes_back_up_to_its_last_session(seed, layout, as_of):
    frame, calendars = market(seed, strays=0)
    panel = Panel.from_frame(frame, calendars=calendars, as_of=as_of)
    back = ROUND_TRIPS[layout](panel, calendars=calendars, as_of=as_of)
    spanned = panel.mask.any(1).numpy() & (panel.dates <= to_long(panel)["date"].max())
    assert back.dates[-1] == panel.dates[spanned][-1]
    assert_same(back, panel.until(back.dates[-1]))


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, layout=st.sampled_from(sorted(ROUND_TRIPS)), actions=st.sampled_from(["events", "adj_close"]))
def test_an_adjusted_panel_comes_back_as_it_was(seed, layout, actions):
    frame, calendars = market(seed)
    rng = np.random.default_rng(seed)
    if actions == "events":
        split, dividend = (np.where(rng.random(len(frame)) < 0.2, value, 0.0) for value in (2.0, 0.1))
        frame = frame.assign(split=split, dividend=dividend)
    else:
        frame = frame.assign(adj_close=frame["close"] * rng.uniform(0.5, 1.5, len(frame)))
    panel = Panel.from_frame(frame, calendars=calendars)
    assert_same(ROUND_TRIPS[layout](panel, calendars=calendars, fields=["unadjusted_close"]), panel)
    if layout == "xarray":
        assert_same(ROUND_TRIPS[layout](panel, calendars=calendars), panel)


def test_long_rows_are_labelled_by_session_and_say_where_the_panel_holds_them(prices):
    panel = Panel.from_frame(prices, as_of=LONDON)
    frame = to_long(panel, with_as_of=True)
    aaa = frame[frame["asset"] == "AAA"].set_index("date")
    assert aaa.loc["2019-07-03", "row_date"] == pd.Timestamp("2019-07-04")  # a holiday in New York, not in Frankfurt
    assert aaa.loc["2019-07-01", "row_date"] == pd.Timestamp("2019-07-02")
    assert aaa.loc["2019-07-01", "as_of"] == pd.Timestamp("2019-07-02 15:30", tz="UTC")
    source = prices.set_index(["date", "asset"])["close"]
    held = frame.set_index(["date", "asset"])["close"]
    pd.testing.assert_series_equal(held, source.loc[held.index])
    assert len(frame) == panel.mask.sum()


def test_index_layouts_are_sorted_and_named(prices):
    panel = Panel.from_frame(prices)
    for layout, names in (("multiindex", ["date", "asset"]), ("qlib", ["datetime", "instrument"])):
        frame = to_long(panel, layout=layout)
        assert list(frame.index.names) == names
        assert frame.index.is_monotonic_increasing
        assert list(frame.columns) == ["exchange", "close"]


def test_columns_of_ones_own_come_back_when_asked_for(prices):
    panel = Panel.from_frame(prices.assign(spread=0.01), fields=["spread"])
    assert_same(Panel.from_frame(to_long(panel), fields=panel.fields), panel)
    if "xarray" in ROUND_TRIPS:
        assert_same(ROUND_TRIPS["xarray"](panel), panel)


@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, as_of=INSTANTS | st.sampled_from([None, "23:30 Pacific/Honolulu"]))
def test_wide_frames_hold_every_close_at_its_session_or_its_row(seed, as_of):
    frame, calendars = market(seed)
    panel = Panel.from_frame(frame, calendars=calendars, as_of=as_of)
    by_row = to_wide(panel, by="row")
    np.testing.assert_array_equal(by_row.to_numpy(), panel.close)
    assert list(by_row.index) == list(panel.dates)
    by_session = to_wide(panel)
    held = by_session.stack().dropna().rename("close").reset_index().sort_values(["asset", "date"], ignore_index=True)
    pd.testing.assert_frame_equal(held, to_long(panel)[["date", "asset", "close"]], check_like=True)
    np.testing.assert_array_equal(to_wide(panel, "return", by="row").to_numpy(), panel.returns())


def test_wide_closes_come_back(prices):
    panel = Panel.from_frame(prices)
    assert_same(Panel.from_frame(to_wide(panel), exchange=dict(zip(panel.assets, panel.exchanges, strict=True))), panel)


@pytest.mark.parametrize(
    ("text", "day", "number"),
    [
        (pa.string(), pa.date32(), pa.float64()),
        (pa.large_string(), pa.timestamp("ns"), pa.float32()),
        (pa.string_view(), pa.timestamp("ms"), pa.decimal128(9, 2)),
        (pa.dictionary(pa.uint32(), pa.string()), pa.date64(), pa.float64()),
    ],
    ids=str,
)
def test_arrow_comes_in_many_types(text, day, number):
    table = pa.table(
        {
            "date": pa.array(pd.to_datetime(["2019-07-02", "2019-07-03"])).cast(day),
            "asset": pa.array(["AAA", "AAA"], text),
            "exchange": pa.array(["XNYS", "XNYS"], text),
            "close": pa.array([decimal.Decimal("100.25"), decimal.Decimal("101.50")]).cast(number),
            "volume": pa.nulls(2),
        }
    )
    panel = from_arrow(table)
    assert list(panel.dates) == list(pd.to_datetime(["2019-07-02", "2019-07-03"]))
    assert panel.close.flatten().tolist() == [100.25, 101.5]


def test_arrow_takes_qlib_names_and_wide_closes(prices):
    panel = Panel.from_frame(prices)
    table = to_arrow(panel)
    assert table.schema.field("date").type == pa.date32()
    named = table.rename_columns(["datetime", "instrument", "exchange", "$close"])
    assert_same(from_arrow(named), panel)
    wide = pa.Table.from_pandas(to_wide(panel).reset_index(), preserve_index=False)
    assert_same(from_arrow(wide, exchange={"AAA": "XNYS", "BBB": "XNYS", "EEE": "XECB"}), panel)


def test_polars_types_are_read(prices):
    pl = pytest.importorskip("polars")
    panel = Panel.from_frame(prices)
    frame = pl.from_arrow(to_arrow(panel))
    assert frame.schema["date"] == pl.Date
    assert frame.schema["asset"] == pl.String
    cast = frame.with_columns(
        pl.col("date").cast(pl.Datetime("ns")),
        pl.col("asset").cast(pl.Categorical),
        pl.col("exchange").cast(pl.Enum(["XECB", "XNYS"])),
        pl.lit(None).alias("volume"),
    )
    assert_same(from_arrow(cast), from_arrow(frame.with_columns(pl.lit(None).cast(pl.Float64).alias("volume"))))


def test_xarray_names_states_sessions_and_instants(prices):
    pytest.importorskip("xarray")
    panel = Panel.from_frame(prices, as_of=LONDON)
    dataset = to_xarray(panel)
    assert dict(dataset.sizes) == {"date": len(panel.dates), "asset": 3}
    assert dataset["state"].attrs["flag_meanings"].split() == [state.name.lower() for state in State]
    cell = dataset.sel(date="2019-07-02", asset="AAA")
    assert cell["session"] == np.datetime64("2019-07-01")
    assert cell["as_of"] == np.datetime64("2019-07-02T15:30")
    assert cell["exchange"] == "XNYS"
    part = dataset.transpose("asset", "date").isel(date=slice(None, None, -1)).sel(asset=["EEE"])
    torch.testing.assert_close(from_xarray(part, as_of=LONDON).close[:, 0], panel.close[:, 2], equal_nan=True)


def test_prices_that_would_move_to_another_row_are_refused(prices):
    panel = Panel.from_frame(prices, as_of=LONDON)
    words = r"AAA 2019-06-03, in row 2019-06-04 of the data, is in row 2019-06-03 at as_of=None.*Pass the as_of"
    with pytest.raises(DataError, match=words):
        from_arrow(to_arrow(panel, with_as_of=True))
    pytest.importorskip("xarray")
    with pytest.raises(DataError, match=words):
        from_xarray(to_xarray(panel))


def test_gluonts_gets_regular_weekdays_from_first_to_last(prices):
    holes = prices[~((prices["asset"] == "BBB") & (prices["date"] == "2019-07-10"))]
    panel = Panel.from_frame(holes[(holes["asset"] != "EEE") | (holes["date"] >= "2019-06-12")], as_of=LONDON)
    for field in ("close", "return"):
        frame = to_gluonts(panel, field)
        assert frame.attrs["freq"] == "B"
        assert frame["target"].dtype == np.float32  # GluonTS' feed-forward model fails on float64
        wide = to_wide(panel, field)
        for asset, series in frame.groupby("item_id"):
            expected = wide[asset].dropna()
            days = pd.bdate_range(expected.index[0], expected.index[-1])
            assert list(series["timestamp"]) == list(days)
            np.testing.assert_array_equal(series["target"], wide[asset].reindex(days).astype("float32"))
    assert np.isnan(frame.set_index(["item_id", "timestamp"]).loc[("BBB", "2019-07-10"), "target"])
    assert np.isnan(frame.set_index(["item_id", "timestamp"]).loc[("AAA", "2019-07-04"), "target"])


def test_gluonts_gets_every_day_where_a_market_trades_on_sundays(prices, tmp_path):
    panel = Panel.from_frame(make_prices({"NYC": "XNYS", "TLV": "XTAE"}, "2019-06-03", "2019-06-28"))
    frame = to_gluonts(panel, "close")
    assert frame.attrs["freq"] == "D"
    assert (frame.groupby("item_id")["timestamp"].diff().dropna() == pd.Timedelta(days=1)).all()
    assert frame["target"].notna().sum() == panel.mask.sum()
    with pytest.raises(DataError, match=r"weekends, which freq='B' cannot hold: TLV 2019-06-1.*freq='D'"):
        to_gluonts(panel, freq="B")
    frame.to_parquet(tmp_path / "series.parquet")
    back = pd.read_parquet(tmp_path / "series.parquet")
    pd.testing.assert_frame_equal(back, frame)
    assert back.attrs == frame.attrs


@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, as_of=INSTANTS | st.sampled_from([None, "23:30 Pacific/Honolulu"]))
def test_neuralforecast_gets_every_row_of_every_asset(seed, as_of):
    frame, calendars = market(seed)
    panel = Panel.from_frame(frame, calendars=calendars, as_of=as_of)
    T, N = panel.mask.shape
    for field, values in (("return", panel.returns().numpy()), ("close", panel.close.numpy())):
        out = to_neuralforecast(panel, field)
        assert list(out["unique_id"]) == [asset for asset in panel.assets for _ in range(T)]
        assert list(out["ds"]) == list(panel.dates) * N
        y, mask = (out[name].to_numpy().reshape(N, T).T for name in ("y", "available_mask"))
        np.testing.assert_array_equal(mask == 1, ~np.isnan(values))
        np.testing.assert_array_equal(y, np.nan_to_num(values))
        previous = to_neuralforecast(panel, field, fill="previous")["y"].to_numpy().reshape(N, T).T
        np.testing.assert_array_equal(previous, pd.DataFrame(values).ffill().fillna(0))


def test_what_cannot_be_is_refused_by_name(prices, monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # a user's calls are not type-checked
    panel = Panel.from_frame(prices)
    for call, words in (
        (lambda: to_long(panel, layout="tall"), "layout='tall' is none of 'long', 'multiindex', 'qlib'"),
        (lambda: to_wide(panel, by="week"), "by='week' is neither"),
        (lambda: to_wide(panel, "open"), "no field 'open'.*close"),
        (lambda: to_gluonts(panel, freq="M"), "freq='M' is neither"),
        (lambda: to_neuralforecast(panel, fill="mean"), "fill='mean' is neither"),
        (lambda: from_arrow({"date": []}), "a dict is not an Arrow table.*LazyFrame's collect"),
        (lambda: from_arrow(pa.table({"date": [datetime.date(2019, 7, 2)], "asset": ["AAA"]})), "no column 'close'"),
    ):
        with pytest.raises(DataError, match=words):
            call()
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"pip install 'qtorch-finance\[interchange\]'"):
        to_xarray(panel)


def test_a_dataset_of_other_dimensions_is_refused(prices):
    pytest.importorskip("xarray")
    dataset = to_xarray(Panel.from_frame(prices))
    with pytest.raises(DataError, match=r"dimensions time, asset.*dataset.rename\(time='date'"):
        from_xarray(dataset.rename(date="time"))
    with pytest.raises(DataError, match="'close' is over date, where"):
        from_xarray(dataset.assign(close=dataset["close"].isel(asset=0, drop=True)))
