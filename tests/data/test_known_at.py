import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import DataError, Panel, State, sessions
from tests.conftest import make_prices


@pytest.fixture
def frame() -> pd.DataFrame:
    """Two assets whose rows are known at the close."""
    frame = make_prices({"AAA": "XNYS", "EEE": "XECB"}, "2019-07-01", "2019-07-31")
    calendars = [sessions(code, frame["date"].min(), frame["date"].max()) for code in ("XNYS", "XECB")]
    closes = [calendar.closes[calendar.days <= "2019-07-31"] for calendar in calendars]
    return frame.assign(known_at=closes[0].append(closes[1]))


def at(frame: pd.DataFrame, asset: str, date: str) -> int:
    return frame.index[(frame["asset"] == asset) & (frame["date"] == date)][0]


def cell(panel: Panel, asset: str, date: str) -> tuple[State, float]:
    t, n = panel.row(date), panel.assets.index(asset)
    return State(int(panel.state[t, n])), panel.close[t, n].item()


def test_rows_known_at_their_close_change_nothing(frame):
    a, b = Panel.from_frame(frame), Panel.from_frame(frame.drop(columns="known_at"))
    torch.testing.assert_close(a.close, b.close, rtol=0, atol=0, equal_nan=True)
    assert a.state.equal(b.state)


def test_a_late_row_is_visible_only_once_known(frame):
    friday = at(frame, "EEE", "2019-07-03")  # known on the 4th, a session of the ECB
    frame.loc[friday, "known_at"] = pd.Timestamp("2019-07-04 06:00", tz="UTC")
    drop = at(frame, "EEE", "2019-07-04")
    panel = Panel.from_frame(frame.drop(index=drop))
    assert cell(panel, "EEE", "2019-07-03")[0] == State.MISSING
    assert cell(panel, "EEE", "2019-07-04") == (State.OBSERVED, frame["close"][friday])


def test_a_row_known_after_a_later_session_never_takes_its_place(frame):
    late = at(frame, "AAA", "2019-07-08")
    frame.loc[late, "known_at"] = pd.Timestamp("2019-07-10 12:00", tz="UTC")
    panel = Panel.from_frame(frame)
    assert cell(panel, "AAA", "2019-07-08")[0] == State.MISSING
    assert cell(panel, "AAA", "2019-07-10") == (State.OBSERVED, frame["close"][at(frame, "AAA", "2019-07-10")])
    (lost,) = panel.findings.to_dict("records")
    assert (lost["kind"], lost["asset"], lost["row"]) == ("superseded", "AAA", late)
    closed = at(frame, "AAA", "2019-07-10")  # with no session of the 10th, the 9th's close is still the later one
    panel = Panel.from_frame(frame.drop(index=closed))
    assert cell(panel, "AAA", "2019-07-10")[0] == State.MISSING
    assert set(panel.findings["detail"]) == {"known after a later close"}


def test_a_revision_never_changes_what_was_known(frame):
    first = at(frame, "AAA", "2019-07-08")
    revision = frame.loc[[first]].assign(close=999.0, known_at=pd.Timestamp("2019-07-09 10:00", tz="UTC"))
    both = pd.concat([frame, revision]).sort_values(["asset", "date", "known_at"], ignore_index=True)
    panel = Panel.from_frame(both)
    assert cell(panel, "AAA", "2019-07-08") == (State.OBSERVED, frame["close"][first])
    assert not (panel.close == 999.0).any()
    assert list(panel.findings["kind"]) == ["superseded"]


def with_versions(frame: pd.DataFrame, *versions: dict) -> pd.DataFrame:
    """AAA's row of 8 July as each version has it, the first in the place of its own."""
    row = frame[(frame["asset"] == "AAA") & (frame["date"] == "2019-07-08")]
    parts = [row.assign(**version) for version in versions]
    columns = dict.fromkeys(name for version in versions for name in version if name not in frame)
    rest = frame.drop(index=row.index).assign(**dict.fromkeys(columns, np.nan))
    return pd.concat([rest, *parts]).sort_values(["asset", "date"], kind="stable", ignore_index=True)


def assert_same_prices(one: pd.DataFrame, other: pd.DataFrame, **options) -> None:
    a, b = (Panel.from_frame(frame, **options).values for frame in (one, other))
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", ["split", "dividend", "adj_close"])
@pytest.mark.parametrize("revised", [2.0, 3.0, 0.0])
def test_a_revision_revises_no_action_that_was_known(frame, kind, revised):
    if kind == "adj_close":
        frame, revised = frame.assign(adj_close=frame["close"] * 0.9), revised + 0.1
    later = {kind: revised, "known_at": pd.Timestamp("2019-07-09 10:00", tz="UTC")}
    once = with_versions(frame, {kind: 2.0})
    assert_same_prices(with_versions(frame, {kind: 2.0}, later), once)
    assert_same_prices(with_versions(frame, {kind: 2.0}, {**later, "close": np.nan}), once)


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [("split", 2.0, 3.0), ("split", 2.0, 1.0), ("split", np.nan, 2.0), ("dividend", 5.0, 0.0), ("dividend", 5.0, 4.0)],
)
def test_the_latest_version_of_an_action_holds_at_the_same_as_of(frame, kind, first, last):
    overnight = {"known_at": pd.Timestamp("2019-07-09 10:00", tz="UTC")}  # before London's next 16:30
    for order in (1, -1):
        both = [{kind: first}, {kind: last, **overnight}][::order]
        assert_same_prices(
            with_versions(frame, *both), with_versions(frame, {kind: last, **overnight}), as_of="16:30 Europe/London"
        )


def test_an_action_stated_late_counts_once_it_is_known(frame):
    frame = frame[frame["asset"] == "AAA"]
    late = {"split": 2.0, "known_at": pd.Timestamp("2019-07-09 10:00", tz="UTC")}
    panel = Panel.from_frame(with_versions(frame, {"split": 1.0}, late))
    close = frame.set_index("date")["close"] * np.where(frame["date"] < "2019-07-09", 1.0, 2.0)
    np.testing.assert_allclose(panel.close[:, 0], close, rtol=1e-12)


@pytest.mark.parametrize("late", [True, False])
def test_a_dividend_is_paid_on_the_shares_of_a_split_that_becomes_known_with_it(late):
    dates = pd.to_datetime(["2019-07-08", "2019-07-09", "2019-07-10"])
    known = (dates + pd.Timedelta(hours=20)).tz_localize("UTC").to_series(index=range(3))
    frame = pd.DataFrame({"date": dates, "asset": "AAA", "exchange": "XNYS", "close": [100.0, 52.0, 51.0]})
    frame = frame.assign(split=[1.0, 2.0, 1.0], dividend=[0.0, 0.5, 0.3], known_at=known)
    if late:
        frame.loc[1, "known_at"] = known[2]
    else:
        frame.loc[1, "close"] = np.nan
    panel = Panel.from_frame(frame)
    assert panel.mask[:, 0].tolist() == [True, False, True]
    assert panel.returns()[2, 0].item() == pytest.approx((2 * 51 + 0.5 + 2 * 0.3) / 100 - 1, rel=1e-12)


def test_an_action_up_to_the_first_price_changes_nothing_whenever_it_is_known(frame):
    listed = frame[frame["date"] >= "2019-07-08"]
    late = {"split": 2.0, "known_at": pd.Timestamp("2019-07-12 10:00", tz="UTC")}
    assert_same_prices(with_versions(listed, {"split": 1.0}, late), with_versions(listed, {"split": 1.0}))
    early = {**late, "date": pd.Timestamp("2019-07-03"), "close": np.nan}
    assert_same_prices(with_versions(listed, early, {"split": 1.0}), with_versions(listed, {"split": 1.0}))


def test_every_price_is_known_at_its_row(frame):
    rng = np.random.default_rng(0)
    frame["known_at"] += pd.to_timedelta(rng.exponential(20, len(frame)), unit="h").as_unit("us")
    panel = Panel.from_frame(frame, as_of="12:00 Europe/London")
    known = frame.set_index("close")["known_at"]
    for t, n in panel.mask.nonzero().tolist():
        instant = known[panel.close[t, n].item()]
        assert instant <= panel.as_of[t]
        assert t == 0 or instant > panel.as_of[t - 1]
    for n in range(2):
        days = panel.session_day[panel.mask[:, n], n]
        assert (days.diff() > 0).all()
    assert panel.mask.sum() + (panel.findings["kind"] != "jump").sum() == len(frame)


def test_known_at_needs_a_time_zone(frame):
    with pytest.raises(DataError, match="known_at is datetime64.*not instants with a time zone"):
        Panel.from_frame(frame.assign(known_at=frame["known_at"].dt.tz_localize(None)))
    frame.loc[3, "known_at"] = pd.NaT
    with pytest.raises(DataError, match=r"no known_at: AAA .*\(row 3\)"):
        Panel.from_frame(frame)
