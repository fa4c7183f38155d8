import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config

from qtorch.data import DataError, Panel, State, sessions
from tests.conftest import make_prices


def state(panel: Panel, asset: str, date: str) -> State:
    return State(int(panel.state[panel.row(date), panel.assets.index(asset)]))


def test_states_tell_a_holiday_from_a_fault(prices):
    days = pd.to_datetime(["2019-06-03", "2019-07-10", "2019-08-30"])
    kept = prices[~((prices["asset"] == "BBB") & prices["date"].isin(days))]
    panel = Panel.from_frame(kept)
    assert state(panel, "AAA", "2019-07-03") == State.OBSERVED
    assert state(panel, "AAA", "2019-07-04") == State.CLOSED
    assert state(panel, "EEE", "2019-07-04") == State.OBSERVED
    assert state(panel, "BBB", "2019-07-10") == State.MISSING
    assert state(panel, "BBB", "2019-06-03") == State.UNLISTED
    assert state(panel, "BBB", "2019-08-30") == State.UNLISTED


def test_the_rows_are_the_union_of_the_calendars(prices):
    panel = Panel.from_frame(prices)
    union = sessions("XNYS", prices["date"].min(), prices["date"].max()).days.union(
        sessions("XECB", prices["date"].min(), prices["date"].max()).days
    )
    assert list(panel.dates) == list(union[union <= prices["date"].max()])


def test_returns_span_closed_and_missing_days(prices):
    panel = Panel.from_frame(prices[prices["date"] != "2019-07-10"])
    returns = panel.returns()
    aaa = prices[prices["asset"] == "AAA"].set_index("date")["close"]
    n = panel.assets.index("AAA")
    assert returns[panel.row("2019-07-04"), n].isnan()
    over_holiday = aaa["2019-07-05"] / aaa["2019-07-03"] - 1
    over_hole = aaa["2019-07-11"] / aaa["2019-07-09"] - 1
    assert returns[panel.row("2019-07-05"), n].item() == pytest.approx(over_holiday, abs=1e-15)
    assert returns[panel.row("2019-07-11"), n].item() == pytest.approx(over_hole, abs=1e-15)


def test_layouts_agree(prices):
    long = Panel.from_frame(prices)
    indexed = Panel.from_frame(prices.set_index(["date", "asset"]))
    wide = prices.pivot(index="date", columns="asset", values="close")
    codes = prices.drop_duplicates("asset").set_index("asset")["exchange"].to_dict()
    from_wide = Panel.from_frame(wide, exchange=codes)
    for other in (indexed, from_wide):
        assert other.assets == long.assets
        assert torch.equal(other.state, long.state)
        assert torch.equal(other.close.nan_to_num(), long.close.nan_to_num())


def test_parquet_reads_a_span_of_a_partitioned_dataset(prices, tmp_path):
    prices.assign(year=prices["date"].dt.month).to_parquet(tmp_path / "set", partition_cols=["year"])
    panel = Panel.from_parquet(tmp_path / "set", start="2019-07-01", end="2019-07-31")
    assert (str(panel.dates[0].date()), str(panel.dates[-1].date())) == ("2019-07-01", "2019-07-31")
    assert panel.mask.sum() == prices["date"].between("2019-07-01", "2019-07-31").sum()


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "date"])
@pytest.mark.parametrize("folders", [None, ["date"], ["asset", "date"]])
def test_a_span_of_text_dates_has_its_first_and_its_last_day(prices, tmp_path, form, folders):
    prices = prices[prices["date"].between("2019-06-24", "2019-08-06")]  # each date is a folder
    text = prices["date"].dt.date if form == "date" else prices["date"].dt.strftime(form)
    prices.assign(date=text).to_parquet(tmp_path / "prices", partition_cols=folders)
    panel = Panel.from_parquet(tmp_path / "prices", start="2019-07-01", end="2019-07-31")
    expected = Panel.from_frame(prices[prices["date"].between("2019-07-01", "2019-07-31")])
    assert torch.equal(panel.values.nan_to_num(), expected.values.nan_to_num())


def test_a_span_that_cannot_be_compared_is_refused(prices, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # a user's calls are not type-checked
    path = tmp_path / "prices.parquet"
    prices.to_parquet(path)
    for bound in (pd.Timestamp("2019-07-01", tz="UTC"), "soon", pd.NaT, 20190701):
        for name in ("start", "end"):
            with pytest.raises(DataError, match=f"{name} is .*a date without a time zone: 2020-01-31"):
                Panel.from_parquet(path, **{name: bound})
    prices.assign(date=prices["date"].dt.strftime("%d/%m/%Y")).to_parquet(path)
    with pytest.raises(DataError, match=r"Failed to parse string: '\d\d/\d\d/2019'.*dates as dates"):
        Panel.from_parquet(path, start="2019-07-01")
    prices.assign(date=20190701).to_parquet(path)
    with pytest.raises(DataError, match="prices.parquet: date is int64, not dates"):
        Panel.from_parquet(path, start="2019-07-01")


@pytest.mark.parametrize("folders", [["asset"], ["exchange", "asset"], ["year", "asset"]])
def test_folders_name_assets_as_they_are(prices, tmp_path, folders):
    names = prices["asset"].map({"AAA": "000001", "BBB": "000002", "EEE": "1"})
    prices = prices.assign(asset=names, year=prices["date"].dt.year)
    prices.to_parquet(tmp_path / "set", partition_cols=folders)
    for store in (None, tmp_path / "store"):
        panel = Panel.from_parquet(tmp_path / "set", store=store)
        assert panel.assets == ("000001", "000002", "1")
        assert torch.equal(panel.values.nan_to_num(), Panel.from_frame(prices).values.nan_to_num())


def test_assets_may_be_numbers(prices, tmp_path):
    prices = prices.assign(asset=prices["asset"].map({"AAA": 1, "BBB": 2, "EEE": 3}))
    prices.to_parquet(tmp_path / "prices.parquet")
    expected = Panel.from_frame(prices)
    for store in (None, tmp_path / "store"):
        panel = Panel.from_parquet(tmp_path / "prices.parquet", store=store)
        assert panel.assets == expected.assets == ("1", "2", "3")
        assert torch.equal(panel.values.nan_to_num(), expected.values.nan_to_num())


@pytest.mark.parametrize(
    ("date", "ny_session", "tokyo_session"),
    [
        ("2021-03-15", "2021-03-12", "2021-03-15"),  # the US on summer time, Europe not yet
        ("2021-03-29", "2021-03-26", "2021-03-29"),  # both on summer time
        ("2020-11-26", "2020-11-25", "2020-11-26"),  # Thanksgiving
        ("2020-11-27", None, "2020-11-27"),  # New York closes early, at 18:00, which is after 16:30
        ("2020-11-30", "2020-11-27", "2020-11-30"),
        ("2020-01-02", "2019-12-31", None),  # Tokyo's New Year holidays
        ("2019-05-01", "2019-04-30", None),  # Golden Week, ten days
        ("2019-05-07", "2019-05-06", "2019-05-07"),  # after it; London had a bank holiday on the 6th
    ],
)
def test_a_row_holds_what_is_known_at_its_instant(date, ny_session, tokyo_session):
    frame = make_prices({"NYC": "XNYS", "TYO": "XTKS", "LON": "XLON"}, "2019-04-01", "2021-04-30")
    panel = Panel.from_frame(frame, as_of="16:30 Europe/London")
    row = panel.row(date)
    for asset, session in (("NYC", ny_session), ("TYO", tokyo_session), ("LON", date)):
        price = panel.close[row, panel.assets.index(asset)].item()
        if session is None:
            assert np.isnan(price)
        else:
            expected = frame[(frame["asset"] == asset) & (frame["date"] == session)]["close"].item()
            assert price == expected


@pytest.fixture(scope="module")
def calendars():
    import exchange_calendars

    span = {"start": "2017-12-01", "end": "2021-01-31"}
    return {code: exchange_calendars.get_calendar(code, **span) for code in ("XNYS", "XTKS", "XLON")}


@pytest.mark.parametrize("as_of", [None, "16:30 Europe/London", "12:00 Asia/Tokyo", "13:30 America/New_York"])
def test_no_close_is_later_than_the_instant_of_its_row(as_of, calendars):
    frame = make_prices({"NYC": "XNYS", "TYO": "XTKS", "LON": "XLON"}, "2018-01-04", "2020-12-30")
    panel = Panel.from_frame(frame, as_of=as_of)
    seen = 0
    for n, code in enumerate(panel.exchanges):
        calendar = calendars[code]
        there = panel.mask[:, n].numpy()
        sessions = pd.to_datetime(panel.session_day[there, n].numpy(), unit="D")
        assert (pd.DatetimeIndex(calendar.closes[sessions]) <= panel.as_of[there]).all()
        prices = frame[frame["asset"] == panel.assets[n]].set_index("date")["close"]
        assert (panel.close[there, n].numpy() == prices[sessions].to_numpy()).all()
        seen += there.sum()
    lost = panel.findings["kind"].isin(["not_yet_known", "superseded"]).sum()
    assert seen + lost == len(frame)


def test_next_sessions_are_known_ahead(prices):
    panel = Panel.from_frame(prices)
    epoch = pd.Timestamp("1970-01-01")

    def following(date: str, asset: str) -> pd.Timestamp:
        return epoch + pd.Timedelta(days=int(panel.next_session_day[panel.row(date), panel.assets.index(asset)]))

    assert following("2019-07-03", "AAA") == pd.Timestamp("2019-07-05")
    assert following("2019-07-03", "EEE") == pd.Timestamp("2019-07-04")
    assert following("2019-08-30", "AAA") == pd.Timestamp("2019-09-03")  # over Labor Day, beyond the data


def test_until_forgets_what_comes_later(prices):
    missing = prices[~((prices["asset"] == "BBB") & prices["date"].between("2019-07-08", "2019-07-12"))]
    panel = Panel.from_frame(missing)
    cut = panel.until("2019-07-12")
    assert state(panel, "BBB", "2019-07-10") == State.MISSING
    assert state(cut, "BBB", "2019-07-10") == State.UNLISTED  # nobody knew then that it would return
    assert torch.equal(cut.mask, panel.mask[: len(cut.dates)])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), holes=st.floats(0, 0.4))
def test_a_panel_holds_every_price_once_and_nothing_else(seed, holes):
    frame = make_prices({"AAA": "XNYS", "TTT": "XTKS", "EEE": "XECB"}, "2019-04-15", "2019-07-19", seed)
    frame = frame.sample(frac=1 - holes, random_state=seed).sort_values(["asset", "date"])
    panel = Panel.from_frame(frame)
    held = {(panel.assets[n], panel.dates[t], panel.close[t, n].item()) for t, n in panel.mask.nonzero().tolist()}
    assert held == set(frame[["asset", "date", "close"]].itertuples(index=False, name=None))
    wide = frame.pivot(index="date", columns="asset", values="close")
    for n, asset in enumerate(panel.assets):
        expected = wide[asset].dropna().pct_change().dropna()
        got = panel.returns()[:, n]
        np.testing.assert_allclose(got[~got.isnan()], expected, rtol=1e-12, atol=1e-15)


def test_frames_that_could_be_misread_are_refused_with_the_remedy(prices):
    """As yfinance gives them, for one ticker and for several; periods; a column twice."""
    wide = prices.pivot(index="date", columns="asset", values="close")[["AAA", "BBB"]].dropna()
    expected = Panel.from_frame(wide, exchange="XNYS")
    single = pd.DataFrame({"Open": wide["AAA"], "Close": wide["AAA"], "Volume": 1.0}).rename_axis("Date")
    for frame, column in ((single, "Close"), (single.rename(columns=str.lower), "close")):
        with pytest.raises(DataError, match=f"DatetimeIndex beside the column '{column}'.*assign"):
            Panel.from_frame(frame, exchange="XNYS")
    long = single.rename(columns=str.lower).rename_axis("date").reset_index().assign(asset="AAA")
    assert torch.equal(Panel.from_frame(long, exchange="XNYS").close[:, 0], expected.close[:, 0])

    several = pd.concat({"Close": wide, "Volume": wide * 0 + 1}, axis=1, names=["Price", "Ticker"])
    with pytest.raises(DataError, match=r"columns of 2 levels \['Price', 'Ticker'\].*frame\['Close'\]"):
        Panel.from_frame(several, exchange="XNYS")
    stacked = several.stack().rename_axis(index=["date", "asset"]).rename(columns=str.lower).sort_index()
    for frame in (several["Close"], stacked):
        assert torch.equal(Panel.from_frame(frame, exchange="XNYS").close, expected.close)

    with pytest.raises(DataError, match=r"index holds periods, not dates\. Pass frame.to_timestamp\(\)"):
        Panel.from_frame(wide.to_period("D"), exchange="XNYS")
    with pytest.raises(DataError, match="more than one column 'close'"):
        Panel.from_frame(pd.concat([prices, prices[["close"]]], axis=1))


def test_assets_are_named_by_their_text(prices):
    numbers = {"AAA": 1, "BBB": 2, "EEE": 3}
    numbered = prices.assign(asset=prices["asset"].map(numbers))
    codes = {1: "XNYS", 2: "XNYS", 3: "XECB"}
    wide = numbered.pivot(index="date", columns="asset", values="close")
    for frame in (numbered.drop(columns="exchange"), wide):
        panel = Panel.from_frame(frame, exchange=codes)
        assert panel.exchanges == ("XNYS", "XNYS", "XECB")
        assert torch.equal(panel.close.nan_to_num(), Panel.from_frame(prices).close.nan_to_num())
    half = np.where(numbered["date"] < "2019-07-15", numbered["asset"].astype(object), numbered["asset"].astype("str"))
    mixed = Panel.from_frame(numbered.assign(asset=pd.Categorical(half)))
    assert torch.equal(mixed.close.nan_to_num(), panel.close.nan_to_num())
    both = pd.concat([numbered, numbered.assign(asset=numbered["asset"].astype("str"))])
    both = both.sort_values("date", kind="stable", ignore_index=True).astype({"asset": "category"})
    with pytest.raises(DataError, match="more than one row for a date and asset: 1 2019-06-03"):
        Panel.from_frame(both)


@pytest.mark.parametrize("column", ["date", "asset", "exchange", "close"])
def test_a_missing_column_is_named(prices, column):
    with pytest.raises(DataError, match=f"no column '{column}'"):
        Panel.from_frame(prices.drop(columns=column))


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "close not positive"), (-1.0, "close not positive"), (np.inf, "infinite"), ("n/a", "text in close")],
)
def test_an_impossible_price_is_named_or_quarantined(prices, value, words):
    prices["close"] = prices["close"].astype(object)
    prices.loc[7, "close"] = value
    where = f"{prices['asset'][7]} {prices['date'][7]:%Y-%m-%d} \\(row 7\\)"
    with pytest.raises(DataError, match=f"{words}.*{where}"):
        Panel.from_frame(prices)
    panel = Panel.from_frame(prices, bad_rows="quarantine")
    (found,) = panel.findings.to_dict("records")
    assert (found["kind"], found["row"], found["asset"]) == ("refused", 7, prices["asset"][7])
    assert panel.mask.sum() == len(prices) - 1


def test_a_duplicate_is_named_or_quarantined(prices):
    twice = pd.concat([prices, prices.iloc[[5]]], ignore_index=True).sort_values(["asset", "date"], ignore_index=True)
    with pytest.raises(DataError, match=r"more than one row.*AAA 2019-06-10 \(row 5\), AAA 2019-06-10 \(row 6\)"):
        Panel.from_frame(twice)
    assert list(Panel.from_frame(twice, bad_rows="quarantine").findings["row"]) == [5, 6]


def test_dates_out_of_order_are_named_or_sorted(prices):
    order = [*range(3), 9, *range(3, 9), *range(10, len(prices))]
    shuffled = prices.iloc[order].reset_index(drop=True)
    with pytest.raises(DataError, match=r"out of order: AAA 2019-06-06 \(row 4\).*sort_values"):
        Panel.from_frame(shuffled)
    panel = Panel.from_frame(shuffled, bad_rows="quarantine")
    assert torch.equal(panel.values.nan_to_num(), Panel.from_frame(prices).values.nan_to_num())
    assert list(panel.findings["kind"]) == ["sorted"]


def test_an_unreadable_date_is_named(prices):
    prices["date"] = prices["date"].astype(object)
    prices.loc[4, "date"] = "soon"
    with pytest.raises(DataError, match=r"date missing or unreadable: AAA soon \(row 4\)"):
        Panel.from_frame(prices)


def test_numbers_and_periods_are_no_dates(prices):
    numbers = prices["date"].dt.strftime("%Y%m%d").astype(int)
    for dates in (numbers, numbers.astype(object), numbers.astype(float)):
        with pytest.raises(DataError, match=r"dates are (integer|floating), not dates: AAA .*format='%Y%m%d'"):
            Panel.from_frame(prices.assign(date=dates))
    with pytest.raises(DataError, match=r"dates are period, not dates.*dt.to_timestamp\(\)"):
        Panel.from_frame(prices.assign(date=prices["date"].dt.to_period("D")))


def test_time_zones_and_times_of_day_are_refused(prices):
    with pytest.raises(DataError, match="time zone UTC"):
        Panel.from_frame(prices.assign(date=prices["date"].dt.tz_localize("UTC")))
    with pytest.raises(DataError, match="time of day: AAA"):
        Panel.from_frame(prices.assign(date=prices["date"] + pd.Timedelta(hours=16)))
    texts = [f"2020-01-0{day} 00:00{zone}" for day, zone in ((2, "+00:00"), (3, "-05:00"))]
    mixed = pd.DataFrame({"date": texts, "asset": "AAA", "exchange": "XNYS", "close": [1.0, 2.0]})
    with pytest.raises(DataError, match="Mixed timezones.*Pass session labels without a time zone"):
        Panel.from_frame(mixed)


def test_a_price_on_a_closed_day_is_treated_by_policy(prices):
    stray = pd.DataFrame([{"date": "2019-07-04", "asset": "AAA", "exchange": "XNYS", "close": 50.0}])
    frame = pd.concat([prices, stray.assign(date=pd.to_datetime(stray["date"]))]).sort_values(["asset", "date"])
    with pytest.raises(DataError, match="exchange is closed: AAA 2019-07-04"):
        Panel.from_frame(frame, off_calendar="raise")
    kept, dropped = Panel.from_frame(frame), Panel.from_frame(frame, off_calendar="drop")
    assert state(kept, "AAA", "2019-07-04") == State.OBSERVED
    assert state(dropped, "AAA", "2019-07-04") == State.CLOSED
    for panel in (kept, dropped):
        assert "off_calendar" in set(panel.findings["kind"])


def test_a_jump_is_reported(prices):
    prices.loc[10, "close"] *= 1.7
    found = Panel.from_frame(prices).findings
    assert list(found["kind"]) == ["jump"]
    assert (found["asset"][0], found["date"][0], found["row"][0]) == ("AAA", prices["date"][10], 10)


def test_unknown_exchange_empty_frame_and_truncated_parquet_are_refused(prices, tmp_path):
    with pytest.raises(DataError, match="unknown exchange code 'NOPE'"):
        Panel.from_frame(prices.assign(exchange="NOPE"))
    with pytest.raises(DataError, match="empty"):
        Panel.from_frame(prices.iloc[:0])
    path = tmp_path / "prices.parquet"
    prices.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"prices.parquet: not a readable Parquet file"):
        Panel.from_parquet(path)
    with pytest.raises(DataError, match="no such file"):
        Panel.from_parquet(tmp_path / "absent.parquet")


def test_an_as_of_that_is_no_time_is_refused(prices):
    for as_of, words in (
        ("16:30", 'not "HH:MM Zone"'),
        ("16:75 Europe/London", "not a time of day"),
        ("16:30 Mars/Base", "no time zone 'Mars/Base'"),
    ):
        with pytest.raises(DataError, match=words):
            Panel.from_frame(prices, as_of=as_of)


def test_known_delistings_tell_a_fault_at_the_end_from_the_end(prices):
    ended = prices[~((prices["asset"] != "EEE") & (prices["date"] > "2019-08-14"))]
    blind = Panel.from_frame(ended)
    told = Panel.from_frame(ended, delisted={"BBB": "2019-08-20"})
    assert state(blind, "AAA", "2019-08-15") == State.UNLISTED
    assert state(told, "AAA", "2019-08-15") == state(told, "AAA", "2019-08-30") == State.MISSING
    assert state(told, "BBB", "2019-08-20") == State.MISSING
    assert state(told, "BBB", "2019-08-21") == State.UNLISTED
    assert state(told.until("2019-08-20"), "BBB", "2019-08-20") == State.MISSING
    assert torch.equal(told.until("2019-08-14").state, blind.until("2019-08-14").state)


def test_delistings_that_cannot_be_are_refused(prices, monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # a user's calls are not type-checked
    with pytest.raises(DataError, match="no row is of 'BBb' in delisted. Correct the names"):
        Panel.from_frame(prices, delisted={"BBb": "2019-08-20", "AAA": "2019-09-02"})
    for date in ("soon", pd.NaT, None, pd.Timestamp("2019-09-02", tz="UTC")):
        with pytest.raises(DataError, match=r"delisted\['BBB'\] is .*a date without a time zone"):
            Panel.from_frame(prices, delisted={"BBB": date})
    silent = pd.concat([prices, prices[prices["asset"] == "BBB"].assign(asset="ZZZ", close=np.nan)])
    assert Panel.from_frame(silent, delisted={"ZZZ": "2019-08-20"}).assets == ("AAA", "BBB", "EEE")


def test_prices_after_a_delisting_are_noted(prices, tmp_path):
    prices.to_parquet(tmp_path / "prices.parquet")
    for panel in (
        Panel.from_frame(prices, delisted={"BBB": "2019-08-28"}),
        Panel.from_parquet(tmp_path / "prices.parquet", delisted={"BBB": "2019-08-28"}, store=tmp_path / "store"),
    ):
        late = prices[(prices["asset"] == "BBB") & (prices["date"] > "2019-08-28")]
        assert list(panel.findings["kind"]) == ["after_delisting"] * 2
        assert list(panel.findings["date"]) == list(late["date"])
        assert list(panel.findings["row"]) == list(late.index)
        assert set(panel.findings["detail"]) == {"a price after its delisting on 2019-08-28"}
        assert state(panel, "BBB", "2019-08-30") == State.OBSERVED
    numbered = prices.assign(asset=prices["asset"].map({"AAA": 1, "BBB": 2, "EEE": 3}))
    assert len(Panel.from_frame(numbered, delisted={2: "2019-08-28"}).findings) == 2


def test_a_time_of_day_is_told_from_a_date(prices):
    with pytest.raises(DataError, match="2019-06-04 15:00:00 is not a date of this panel"):
        Panel.from_frame(prices).row("2019-06-04 15:00")


def test_a_date_with_a_zone_and_an_asset_named_twice_are_refused(prices):
    panel = Panel.from_frame(prices)
    for date in (pd.Timestamp("2019-07-01", tz="UTC"), "soon"):
        for method in (panel.row, panel.until):
            with pytest.raises(DataError, match="date is .*a date without a time zone"):
                method(date)
    with pytest.raises(DataError, match="an asset is named twice: AAA, EEE, AAA"):
        panel.select(["AAA", "EEE", "AAA"])


def test_an_asset_without_any_price_is_noted(prices):
    empty = prices[prices["asset"] == "BBB"].assign(asset="ZZZ", close=np.nan)
    panel = Panel.from_frame(pd.concat([prices, empty]))
    assert "ZZZ" not in panel.assets
    assert list(panel.findings[["kind", "asset"]].itertuples(index=False, name=None)) == [("no_price", "ZZZ")]


def test_a_missing_close_is_no_price_and_no_error(prices):
    prices.loc[3, "close"] = np.nan
    panel = Panel.from_frame(prices)
    assert state(panel, "AAA", f"{prices['date'][3]:%Y-%m-%d}") == State.MISSING


def test_the_sample_is_real_and_misaligned(sample):
    assert sample.groupby("exchange")["asset"].nunique().to_dict() == {"XECB": 12, "XNYS": 23}
    panel = Panel.from_frame(sample)
    strays = panel.findings[panel.findings["kind"] == "off_calendar"]
    assert set(strays["asset"]) == {"WTI"}
    since = panel.dates >= "2000-01-01"
    us, ecb = (panel.is_session[:, panel.assets.index(a)].numpy()[since] for a in ("AAPL", "EURUSD"))
    assert ((us & ~ecb).sum(), (ecb & ~us).sum()) == (53, 154)
