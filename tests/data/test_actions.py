import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import DataError, Panel
from tests.data.markets import make_ohlc


@pytest.fixture
def raw() -> pd.DataFrame:
    """One asset as it was traded, with open, high and low."""
    return make_ohlc({"AAA": "XNYS"}, "2019-06-03", "2019-08-30")


def test_a_split_and_a_dividend_by_hand():
    """100 shares at 100; a 2:1 split and .5 a share; then .3 a new share on a day without a price."""
    dates = pd.to_datetime(["2019-07-08", "2019-07-09", "2019-07-10", "2019-07-11", "2019-07-12"])
    frame = pd.DataFrame(
        {
            "date": dates,
            "asset": "AAA",
            "exchange": "XNYS",
            "close": [100.0, 52.0, 53.0, np.nan, 51.0],
            "split": [1.0, 2.0, np.nan, 0.0, 1.0],
            "dividend": [9.9, 0.5, 0.0, 0.3, np.nan],
        }
    )
    panel = Panel.from_frame(frame)
    returns = panel.returns()[:, 0]
    expected = [np.nan, (2 * 52 + 0.5) / 100 - 1, 53 / 52 - 1, np.nan, (51 + 0.3) / 53 - 1]
    np.testing.assert_allclose(returns, expected, rtol=1e-12)
    np.testing.assert_allclose(panel.field("unadjusted_close")[:, 0], frame["close"])
    assert panel.close[0, 0] == 100
    plain = Panel.from_frame(frame, adjust=False)
    assert plain.fields == ("close",)
    np.testing.assert_allclose(plain.returns()[1, 0], 52 / 100 - 1)


def test_adjusted_returns_are_those_of_reinvesting(raw):
    rng = np.random.default_rng(3)
    raw["split"] = np.where(rng.random(len(raw)) < 0.1, rng.choice([0.1, 0.5, 1.5, 2, 3], len(raw)), 1.0)
    raw["dividend"] = np.where(rng.random(len(raw)) < 0.1, rng.random(len(raw)), 0.0)
    raw.loc[rng.random(len(raw)) < 0.2, "close"] = np.nan
    raw.loc[0, "close"] = 100.0
    panel = Panel.from_frame(raw)
    shares, cash, wealth = 1.0, 0.0, []
    for day in raw.iloc[1:].itertuples():
        cash += shares * day.dividend
        shares *= day.split
        if not np.isnan(day.close):
            shares, cash = shares + cash / day.close, 0.0
            wealth.append(shares * day.close)
    there = panel.mask[:, 0]
    assert torch.equal(there, torch.from_numpy(raw["close"].notna().to_numpy()))
    np.testing.assert_allclose(panel.close[there, 0][1:], wealth, rtol=1e-12)
    ratio = (panel.close / panel.field("unadjusted_close"))[there, 0]
    for name in ("open", "high", "low"):
        np.testing.assert_allclose(panel.field(name)[there, 0], ratio * raw[name][there.numpy()].to_numpy(), rtol=1e-12)


def test_later_actions_change_no_earlier_price(raw):
    later = raw.assign(split=1.0, dividend=0.0)
    later.loc[40, "split"] = 3.0
    later.loc[45, "dividend"] = 2.0
    a, b = Panel.from_frame(raw.assign(split=1.0)), Panel.from_frame(later)
    torch.testing.assert_close(a.close[:40], b.close[:40], rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(a.close[40:], b.close[40:])


@pytest.mark.parametrize("day", ["2019-08-31", "2019-09-03", "2019-10-15"])
@pytest.mark.parametrize("event", [{"split": 2.0}, {"dividend": 10.0}])
@pytest.mark.parametrize("longer", [False, True])
def test_actions_after_the_last_price_are_not_known_yet(raw, day, event, longer):
    frame = raw.assign(**dict.fromkeys(event, 0.0))
    if longer:  # another exchange's prices go on
        frame = pd.concat([frame, make_ohlc({"EEE": "XECB"}, "2019-07-01", "2019-11-29")], ignore_index=True)
    coming = pd.DataFrame([{"date": pd.Timestamp(day), "asset": "AAA", "exchange": "XNYS", **event}])
    told = pd.concat([frame, coming], ignore_index=True)
    for known in ({}, {"known_at": pd.Timestamp("2019-06-03", tz="UTC")}):
        a, b = Panel.from_frame(frame.assign(**known)), Panel.from_frame(told.assign(**known))
        torch.testing.assert_close(a.values, b.values, rtol=0, atol=0, equal_nan=True)
        assert a.findings.equals(b.findings)


def test_an_action_between_sessions_goes_to_the_next(raw):
    saturday = pd.DataFrame([{"date": pd.Timestamp("2019-07-13"), "asset": "AAA", "exchange": "XNYS", "split": 2.0}])
    frame = pd.concat([raw, saturday]).sort_values("date", ignore_index=True)
    monday = Panel.from_frame(raw.assign(split=np.where(raw["date"] == "2019-07-15", 2.0, 1.0)))
    torch.testing.assert_close(Panel.from_frame(frame).values, monday.values, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("event", [{"split": 2.0}, {"dividend": 5.0}])
def test_nothing_is_taken_from_refused_rows(raw, event):
    frame = raw.assign(**dict.fromkeys(event, np.nan))
    acting = frame.iloc[[20]].assign(**event)
    rest = frame.drop(index=20)
    without = Panel.from_frame(rest)
    for other in (acting, frame.iloc[[20]]):  # whether both of the duplicates state it or one
        twice = pd.concat([rest, acting, other]).sort_values("date", kind="stable", ignore_index=True)
        panel = Panel.from_frame(twice, bad_rows="quarantine")
        torch.testing.assert_close(panel.values, without.values, rtol=0, atol=0, equal_nan=True)


def test_an_action_in_a_row_of_its_own_counts_once(raw):
    kept = ["date", "asset", "exchange"]
    event = raw.iloc[[20]][kept].assign(split=2.0, dividend=1.0)
    beside = pd.concat([raw, event]).sort_values("date", kind="stable", ignore_index=True)
    at = raw["date"] == raw["date"][20]
    inside = Panel.from_frame(raw.assign(split=np.where(at, 2.0, 1.0), dividend=np.where(at, 1.0, 0.0)))
    torch.testing.assert_close(Panel.from_frame(beside).values, inside.values, rtol=0, atol=0, equal_nan=True)
    for kind, remedy in (("split", "Keep one of each"), ("dividend", "Give their sum")):
        twice = pd.concat([raw, event[[*kept, kind]], event[[*kept, kind]]])
        twice = twice.sort_values("date", kind="stable", ignore_index=True)
        words = rf"more than one {kind} for a date and asset: AAA 2019-07-01 \(row 21\), .*\(row 22\)\. {remedy}"
        with pytest.raises(DataError, match=words):
            Panel.from_frame(twice)
        panel = Panel.from_frame(twice, bad_rows="quarantine")
        assert list(panel.findings["row"]) == [21, 22]
        np.testing.assert_allclose(panel.close[:, 0], raw["close"], rtol=1e-12)


def test_adj_close_is_the_vendors(raw):
    factor = np.linspace(0.5, 1, len(raw))
    panel = Panel.from_frame(raw.assign(adj_close=raw["close"] * factor, split=7.0))
    np.testing.assert_allclose(panel.close[:, 0], raw["close"] * factor, rtol=1e-12)
    np.testing.assert_allclose(panel.field("high")[:, 0], raw["high"] * factor, rtol=1e-12)


def test_an_asset_without_adj_close_is_taken_as_it_is_but_not_one_with_some(raw):
    two = pd.concat([raw.assign(adj_close=raw["close"] / 2), raw.assign(asset="BBB", adj_close=np.nan)])
    panel = Panel.from_frame(two)
    np.testing.assert_allclose(panel.close[:, 1], raw["close"])
    two = two.reset_index(drop=True)
    two.loc[5, "adj_close"] = np.nan
    with pytest.raises(DataError, match=r"no adj_close beside the close: AAA 2019-06-10\. Give it for every price"):
        Panel.from_frame(two)


@pytest.mark.parametrize(("column", "value"), [("split", -2.0), ("dividend", np.inf), ("adj_close", 0.0)])
def test_impossible_actions_are_refused(raw, column, value):
    raw[column] = 1.0
    raw.loc[3, column] = value
    with pytest.raises(DataError, match=rf"{column} .*: AAA 2019-06-06 \(row 3\)"):
        Panel.from_frame(raw)


def test_log_returns_and_fields(raw):
    panel = Panel.from_frame(raw)
    torch.testing.assert_close(panel.returns(log=True), panel.returns().log1p(), equal_nan=True)
    opens = raw["open"].pct_change()
    np.testing.assert_allclose(panel.returns(field="open")[:, 0], opens, rtol=1e-10, atol=1e-14)


def test_each_field_has_its_mask(raw):
    raw.loc[4, "volume"] = np.nan
    panel = Panel.from_frame(raw)
    at = panel.fields.index("volume")
    assert not panel.field_mask[4, 0, at]
    assert panel.mask[4, 0]
    assert panel.field_mask.sum() == panel.values.isfinite().sum() == len(raw) * len(panel.fields) - 1


def test_further_fields_are_kept_if_asked_for(raw):
    raw["spread"] = -0.5
    assert "spread" not in Panel.from_frame(raw).fields
    panel = Panel.from_frame(raw, fields=["spread"])
    assert (panel.field("spread") == -0.5).all()
    with pytest.raises(DataError, match=r"no column 'bid' of fields=\('bid',\)"):
        Panel.from_frame(raw, fields=("bid",))


@pytest.mark.parametrize("fields", [["split"], ["adj_close"], ["exchange"], ["known_at"], ["row"], ["x", "x"]])
def test_fields_of_another_meaning_or_named_twice_are_refused(raw, fields):
    frame = raw.assign(split=1.0, adj_close=raw["close"], x=1.0, known_at=pd.Timestamp("2019-06-03", tz="UTC"), row=1)
    with pytest.raises(DataError, match=rf"fields=\('{fields[0]}'.*column once, and none of date, asset, exchange"):
        Panel.from_frame(frame, fields=fields)


@pytest.mark.parametrize("action", ["split", "dividend", "adj_close"])
def test_prices_are_not_adjusted_twice(raw, action):
    adjusted = raw.assign(unadjusted_close=raw["close"] * 2, **{action: 1.0})
    with pytest.raises(DataError, match=f"'unadjusted_close' beside '{action}'.*Drop 'unadjusted_close'.*adjust=False"):
        Panel.from_frame(adjusted)
    panel = Panel.from_frame(adjusted, adjust=False, fields=["unadjusted_close"])
    np.testing.assert_allclose(panel.field("unadjusted_close"), 2 * panel.close)
