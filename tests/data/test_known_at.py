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
    closes = [sessions(code, day, day).closes[0] for code, day in zip(frame["exchange"], frame["date"], strict=True)]
    return frame.assign(known_at=pd.DatetimeIndex(closes))


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
