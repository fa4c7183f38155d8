"""Windows of random markets against a slow and obvious pandas reference."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from qtorch.data import Calendar, DataError, Features, Panel, PanelWindowSource, WindowSource, WindowSpec
from qtorch.data.calendars import sessions
from qtorch.data.features import Field, Rank, Return, Volatility

START, END = pd.Timestamp("2021-03-01"), pd.Timestamp("2021-05-14")  # both changes to summer time lie inside
ASSETS = st.lists(
    st.tuples(
        st.integers(0, 2),  # calendar
        st.integers(0, 36),  # days before its listing
        st.integers(0, 36),  # days after its end
        st.sampled_from([0.0, 0.05, 0.4]),  # share of its sessions without a price
    ),
    min_size=1,
    max_size=5,
)
CALENDARS = st.lists(
    st.fixed_dictionaries(
        {
            "weekdays": st.sets(st.sampled_from(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]), min_size=3),
            "zone": st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York", "Europe/London"]),
            "holidays": st.lists(st.dates(START.date(), END.date()), max_size=12),
            "close": st.sampled_from(["09:30", "16:00", "24:00"]),
        }
    ),
    min_size=1,
    max_size=3,
)


# The next close of the one comes before that of the other.
LATE = {"weekdays": {"Mon", "Tue", "Wed"}, "zone": "America/New_York", "holidays": [], "close": "24:00"}
EARLY = {
    "weekdays": {"Mon", "Tue", "Wed"},
    "zone": "Asia/Tokyo",
    "holidays": [],
    "close": "09:30",
}  # the next before it


def calendar(n, weekdays, zone, holidays, close):
    closed = tuple(map(pd.Timestamp, holidays))
    return Calendar(f"C{n}", close=close, zone=zone, weekdays=" ".join(weekdays), holidays=closed)


def prices(known, assets, seed):
    """Prices with gaps, listings and ends."""
    rng = np.random.default_rng(seed)
    parts = []
    for n, (which, late, early, holes) in enumerate(assets):
        on, last = known[which % len(known)], END - pd.Timedelta(days=early)
        days = sessions(on, START + pd.Timedelta(days=late), last).days
        days = days[(days <= last) & (rng.random(len(days)) >= holes)]
        close = 20 * np.exp(0.02 * rng.standard_normal(len(days)).cumsum())
        parts.append(pd.DataFrame({"date": days, "asset": f"A{n}", "exchange": on.code, "close": close}))
    return pd.concat(parts, ignore_index=True)


def reference(frame, panel, known, as_of):
    """Each asset's closes by the panel's row at which they are known, the last of a row."""
    of = {one.code: one for one in known}
    out = {}
    for asset, own in frame.groupby("asset"):
        days = pd.DatetimeIndex(own["date"])
        if as_of is None:
            instants = panel.as_of
        else:
            clock, zone = as_of.split()
            instants = (panel.dates + pd.Timedelta(clock + ":00")).tz_localize(zone).tz_convert("UTC")
        held = sessions(of[own["exchange"].iloc[0]], days[0], days[-1])
        row = instants.searchsorted(held.closes[held.days.get_indexer(days)])
        close = pd.Series(own["close"].to_numpy(), row)
        close = close[close.index < len(panel.dates)]
        out[asset] = close[~close.index.duplicated(keep="last")]
    return out


def features_of(close: pd.Series) -> pd.DataFrame:
    """Inputs of an asset through each of its own returns, by row."""
    returns = close.pct_change().iloc[1:]
    variance = (returns**2).ewm(alpha=0.06).mean()
    return pd.DataFrame({"return": returns, "close": close.iloc[1:], "volatility": variance.pow(0.5).clip(lower=1e-6)})


@pytest.mark.parametrize("as_of", [None, "16:30 Europe/London"])
@settings(max_examples=40, deadline=None)
@given(CALENDARS, ASSETS, st.integers(0, 2**31), st.integers(1, 7), st.integers(2, 6), st.integers(1, 4))
@example([LATE, EARLY], [(0, 0, 0, 0.0), (1, 0, 0, 0.05)], 0, 3, 2, 1)
def test_windows_hold_what_a_plain_loop_over_pandas_finds(as_of, markets, assets, seed, context, long, warm_up):
    known = [calendar(n, **of) for n, of in enumerate(markets)]
    frame = prices(known, assets, seed)
    features = (Return(), Field("close"), Volatility(0.94, min_sessions=0))
    spec = WindowSpec(context, (1, long), Features(features, warm_up=warm_up))
    assume(len(frame))
    panel = Panel.from_frame(frame, calendars=known, as_of=as_of)
    closes = reference(frame, panel, known, as_of)
    if max(map(len, closes.values())) <= warm_up + 1:
        with pytest.raises(DataError, match=f"no asset has more than {warm_up} returns"):
            WindowSource(panel, spec)
        return
    source = WindowSource(panel, spec)
    window = source.gather(source.entries())
    every = source.gather(source.entries(), every_position=True)
    found = {
        (panel.assets[n], t): b
        for b, (n, t) in enumerate(zip(window.asset_index.tolist(), window.row_index.tolist(), strict=True))
    }
    expected_entries = set()
    for asset in panel.assets:
        close = closes[asset]
        inputs = features_of(close)
        assert (inputs.index == source.table.row[source.table.of(panel.assets.index(asset))].numpy()).all()
        for i in range(warm_up, len(inputs)):
            b = found[asset, inputs.index[i]]
            expected_entries.add((asset, inputs.index[i]))
            first = max(warm_up, i - context + 1)
            there = i - first + 1
            assert window.mask[b].tolist() == [False] * (context - there) + [True] * there
            np.testing.assert_allclose(window.inputs[b, -there:], inputs.iloc[first : i + 1], rtol=2e-6, atol=1e-7)
            assert not window.inputs[b, : context - there].any()
            assert float(window.scale[b]) == pytest.approx(inputs["volatility"].iloc[i], rel=1e-6)
            for h, horizon in enumerate((1, long)):
                for j in range(first, i + 1):
                    now, then = j + 1, j + 1 + horizon  # close 0 has no return
                    target = close.iloc[then] / close.iloc[now] - 1 if then < len(close) else None
                    c = context - 1 - i + j
                    assert bool(every.target_mask[b, c, h]) == (target is not None)
                    assert float(every.target[b, c, h]) == pytest.approx(target or 0.0, rel=1e-6, abs=1e-7)
                assert window.target[b, h] == every.target[b, -1, h]
                assert window.target_mask[b, h] == every.target_mask[b, -1, h]
    assert set(found) == expected_entries
    ranked = Features((Return(), Rank(Return())), warm_up=warm_up)
    check_panel_layout(panel, dataclasses.replace(spec, features=ranked), closes)


def check_panel_layout(panel, spec, closes):
    """All assets on the panel's rows: own inputs where observed, and ranks among those."""
    returns = pd.DataFrame({asset: closes[asset].pct_change() for asset in panel.assets}, range(len(panel.dates)))
    rank = returns.rank(axis=1).sub(1)
    rank = rank.mul(2).div(rank.notna().sum(axis=1) - 1, axis=0).sub(1)  # 0 / 0 where one asset is alone
    there = rank.notna()
    for asset, close in closes.items():
        there.loc[close.index[: spec.features.first_usable + 1], asset] = False
    if not there.any(axis=None):
        with pytest.raises(DataError, match="warm-up"):
            PanelWindowSource(panel, spec)
        return
    together = PanelWindowSource(panel, spec)
    rows = together.entries()
    assert rows.tolist() == np.flatnonzero(there.any(axis=1)).tolist()
    window = together.gather(rows)
    expected = np.stack([returns.where(there, 0.0), rank.where(there, 0.0)], axis=-1)
    for b, row in enumerate(rows.tolist()):
        for c, t in enumerate(range(row - spec.context + 1, row + 1)):
            assert window.mask[b, c].tolist() == (there.loc[t].tolist() if t >= 0 else [False] * len(panel.assets))
            if t >= 0:
                np.testing.assert_allclose(window.inputs[b, c], expected[t], rtol=2e-6, atol=1e-6)
