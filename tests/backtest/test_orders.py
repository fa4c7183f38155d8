import exchange_calendars
import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.backtest import Currencies, Ledger, Orders, Signals
from qtorch.data import Calendar, DataError, Panel, sessions
from qtorch.portfolio import Costs
from tests.conftest import make_prices

NAN = float("nan")
WORLD = {"US1": "XNYS", "JP1": "XTKS", "UK1": "XLON", "US2": "XNYS"}


def with_opens(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(open=frame["close"] * np.random.default_rng(5).uniform(0.99, 1.01, len(frame)))


@pytest.fixture(scope="module")
def world() -> Panel:
    """Golden Week of ten days, Thanksgiving, its early close, and weeks in which only the US has changed its clocks."""
    return Panel.from_frame(with_opens(make_prices(WORLD, "2019-03-01", "2019-11-29")))


@pytest.fixture
def short() -> pd.DataFrame:
    """Ten sessions of two New York stocks."""
    return with_opens(make_prices({"A": "XNYS", "B": "XNYS"}, "2019-07-01", "2019-07-15"))


def by_hand(signals: Signals, code: str, n: int) -> dict[pd.Timestamp, float]:
    """The targets of an asset by session, found by looking at every session of exchange_calendars in turn."""
    calendar = exchange_calendars.get_calendar(code, start="2019-01-01", end="2019-12-31")
    times = list(zip(calendar.sessions, calendar.opens, calendar.closes, strict=True))
    filled: dict[pd.Timestamp, tuple[pd.Timestamp, float]] = {}
    for d, date in enumerate(signals.dates):
        if np.isnan(signals.values[d, n]):
            continue
        known = pd.Timestamp(signals.known_at[d, n]).tz_localize("UTC")
        for session, open_, close in times:
            instant = open_ if signals.fill == "next_open" else close
            if session == date if signals.fill == "this_close" else instant > known:
                if session not in filled or filled[session][0] <= known:
                    filled[session] = known, signals.values[d, n]
                break
    return {session: value for session, (_, value) in filled.items()}


@pytest.mark.parametrize("fill", ["next_open", "next_close", "this_close"])
@pytest.mark.parametrize("stamps", ["as_of", "close", "random"])
def test_fills_are_those_of_a_loop_over_the_sessions(world, fill, stamps):
    rng = np.random.default_rng(11)
    values = rng.random((len(world.dates), 4))
    values[rng.random(values.shape) < 0.3] = NAN
    known = {"as_of": None, "close": "close"}.get(stamps)
    if stamps == "random":  # from the night before the date to days after it
        hours = rng.uniform(-13, 24 * (1 if fill == "this_close" else 4), values.shape)
        instants = world.dates.to_numpy()[:, None] + (hours * 3600).astype("m8[s]")
        columns = {a: pd.DatetimeIndex(instants[:, n], tz="UTC") for n, a in enumerate(world.assets)}
        known = pd.DataFrame({a: pd.Series(index, world.dates) for a, index in columns.items()})
    if fill == "this_close":
        values[~world.mask.numpy()] = NAN
        if stamps != "close":  # each must be known by its own close, which Tokyo's and London's are not by New York's
            latest = pd.DataFrame({a: closes(WORLD[a], world.dates) for a in world.assets}, world.dates)
            stamped = pd.DataFrame(dict.fromkeys(world.assets, world.as_of), world.dates) if known is None else known
            values[(stamped > latest).to_numpy()] = NAN
    signals = Signals.from_panel(world, torch.from_numpy(values), world.dates, known_at=known, fill=fill)
    orders = signals.orders(world)
    price = world.field("open" if fill == "next_open" else "close").numpy()
    pending = set(orders.pending["asset"])
    for n, asset in enumerate(world.assets):
        found = by_hand(signals, WORLD[asset], n)
        expected = pd.Series(list(found.values()), pd.DatetimeIndex(list(found)), dtype=float)
        late = expected.index > world.dates[-1]
        assert (asset in pending) == late.any()
        expected = expected[~late].reindex(orders.dates).to_numpy()
        np.testing.assert_array_equal(orders.targets[:, n], expected)
        there = ~np.isnan(expected)
        np.testing.assert_array_equal(orders.prices[there, n], price[there, n])


def closes(code: str, dates: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return sessions(code, dates[0], dates[-1]).close_of(dates)


def test_a_weight_that_knows_new_york_cannot_trade_at_tokyos_close(world):
    weights = torch.full((1, 4), 0.25)
    signals = Signals.from_panel(world, weights, ["2019-06-03"], fill="this_close")
    with pytest.raises(DataError, match=r"look-ahead.*XTKS.*JP1 2019-06-03 \(known 2019-06-03 20:00 UTC\).*06:00 UTC"):
        signals.orders(world)
    own = Signals.from_panel(world, weights, ["2019-06-03"], known_at="close", fill="this_close")
    assert (own.orders(world).targets[world.row("2019-06-03")] == 0.25).all()


def test_prices_of_the_panel_keep_their_opens_as_of_london():
    """At 16:30 in London, New York's row holds the session before; its orders fill where the row knows them."""
    frame = with_opens(make_prices({"US1": "XNYS", "UK1": "XLON"}, "2019-06-03", "2019-06-14"))
    panel = Panel.from_frame(frame, as_of="16:30 Europe/London")
    signals = Signals.from_panel(panel, torch.full((1, 2), 0.5), ["2019-06-05"], fill="next_close")
    orders = signals.orders(panel)
    filled = [list(panel.dates[~np.isnan(orders.targets[:, n])]) for n in range(2)]
    # New York's close of the 5th comes after 16:30 in London and is on the row of the 6th, as London's of the 6th
    assert filled == [[pd.Timestamp("2019-06-06")]] * 2
    close = frame.set_index(["date", "asset"])["close"]
    row = panel.row("2019-06-06")
    assert orders.prices[row, panel.assets.index("US1")] == close[pd.Timestamp("2019-06-05"), "US1"]
    assert orders.prices[row, panel.assets.index("UK1")] == close[pd.Timestamp("2019-06-06"), "UK1"]


def test_an_order_waits_through_a_halt_unless_superseded(short):
    days = pd.to_datetime(["2019-07-03", "2019-07-05", "2019-07-08"])
    halted = short[~((short["asset"] == "A") & short["date"].isin(days))]
    panel = Panel.from_frame(halted)
    weights = pd.DataFrame({"A": [0.3, NAN, 0.6], "B": 0.1}, pd.to_datetime(["2019-07-02", "2019-07-03", "2019-07-05"]))
    first = Signals.from_panel(panel, weights.iloc[:2]).orders(panel)
    assert first.targets[panel.row("2019-07-09"), 0] == 0.3
    assert np.isnan(np.delete(first.targets[:, 0], panel.row("2019-07-09"))).all()
    both = Signals.from_panel(panel, weights).orders(panel)
    assert both.targets[panel.row("2019-07-09"), 0] == 0.6
    assert (~np.isnan(both.targets[:, 0])).sum() == 1
    assert both.closes[panel.row("2019-07-08"), 0] == both.closes[panel.row("2019-07-02"), 0]


def test_orders_beyond_the_panel_are_kept_as_pending(short):
    panel = Panel.from_frame(short[~((short["asset"] == "B") & (short["date"] >= "2019-07-12"))])
    weights = pd.DataFrame({"A": 0.3, "B": 0.1}, pd.to_datetime(["2019-07-11", "2019-07-12", "2019-07-15"]))
    orders = Signals.from_panel(panel, weights).orders(panel)
    assert orders.pending[["date", "asset", "reason"]].to_numpy().tolist() == [
        [pd.Timestamp("2019-07-15"), "A", "the panel ends before"],
        [pd.Timestamp("2019-07-15"), "B", "the panel ends before"],
    ]
    one = Signals.from_panel(panel, weights.iloc[:1]).orders(panel)
    assert one.pending["reason"].tolist() == ["no price yet"]


def test_a_delisted_position_is_sold_at_its_last_price(short):
    listed = short[~((short["asset"] == "B") & (short["date"] > "2019-07-08"))]
    panel = Panel.from_frame(listed, delisted={"B": "2019-07-08"})
    weights = pd.DataFrame({"A": 0.5, "B": 0.5}, pd.to_datetime(["2019-07-01", "2019-07-10"]))
    for fill in ("next_open", "next_close"):
        orders = Signals.from_panel(panel, weights, fill=fill).orders(panel)
        assert orders.pending["reason"].tolist() == ["delisted"]
        sale = Ledger(Costs(proportional=0.001)).run(orders).trades_frame().query("asset == 'B'").iloc[-1]
        last = panel.close[panel.row("2019-07-08"), 1].item()
        assert (sale["date"], sale["price"]) == (pd.Timestamp("2019-07-09"), last)
        assert sale["cost"] == pytest.approx(0.001 * last * -sale["units"])


def test_prices_before_the_listing_are_not_invented(short):
    panel = Panel.from_frame(short[~((short["asset"] == "B") & (short["date"] < "2019-07-05"))])
    weights = pd.DataFrame({"A": 0.5, "B": 0.5}, pd.to_datetime(["2019-07-01"]))
    orders = Signals.from_panel(panel, weights).orders(panel)
    row = panel.row("2019-07-05")
    assert np.isnan(orders.closes[:row, 1]).all()
    assert orders.targets[row, 1] == 0.5
    with pytest.raises(DataError, match="no close before their fill.*B 2019-07-05"):
        Signals.from_panel(panel, weights, sizing="known").orders(panel)


def test_a_fill_before_the_panel_is_refused(short):
    panel = Panel.from_frame(short)
    late = Panel.from_frame(short[short["date"] >= "2019-07-05"])
    signals = Signals.from_panel(panel, torch.full((1, 2), 0.5), ["2019-07-01"])
    with pytest.raises(DataError, match="before the panel's first row, the first A 2019-07-01"):
        signals.orders(late)
    on_time = Signals.from_panel(panel, torch.full((1, 2), 0.5), ["2019-07-03"]).orders(late)
    assert (on_time.targets[0] == 0.5).all()


def test_a_panel_without_opens_or_a_calendar_without_them_is_refused(short):
    panel = Panel.from_frame(short.drop(columns="open"))
    with pytest.raises(DataError, match="no opens to fill at.*fill='next_close'"):
        Signals.from_panel(panel, torch.full((1, 2), 0.5), ["2019-07-02"], fill="next_open").orders(panel)
    desk = Calendar("DESK", close="16:00", zone="America/New_York", holidays=("2019-07-04",))
    own = Panel.from_frame(short.assign(exchange="DESK"), calendars=[desk])
    weights = torch.full((1, 2), 0.5)
    signals = Signals.from_panel(own, weights, ["2019-07-02"], calendars=[desk], fill="next_open")
    with pytest.raises(DataError, match="DESK: its calendar knows no opens"):
        signals.orders(own)
    opening = Calendar("DESK", "16:00", "America/New_York", holidays=("2019-07-04",), open="09:30")
    placed = Signals.from_panel(own, weights, ["2019-07-03"], calendars=[opening], fill="next_open").orders(own)
    assert (placed.targets[own.row("2019-07-05")] == 0.5).all()


def test_an_assets_exchange_is_the_panels(short):
    panel = Panel.from_frame(short)
    stamps = pd.DatetimeIndex(["2019-07-02 21:00"], tz="UTC")
    wide = pd.DataFrame({"A": [0.5]}, pd.to_datetime(["2019-07-02"]))
    signals = Signals.from_frame(wide, known_at=stamps, exchange="XLON")
    with pytest.raises(DataError, match=r"A \(XLON, the panel's is XNYS\)"):
        signals.orders(panel)
    with pytest.raises(DataError, match="not in the panel: C"):
        Signals.from_frame(wide.rename(columns={"A": "C"}), known_at=stamps, exchange="XNYS").orders(panel)


def test_the_rate_of_a_fill_and_of_a_close_is_that_dates():
    frame = make_prices({"US": "XNYS", "JP": "XTKS"}, "2019-06-03", "2019-06-10")
    panel = Panel.from_frame(frame)
    rates = pd.DataFrame({"JPY": 0.009 + 0.0001 * np.arange(6)}, panel.dates)
    money = Currencies(rates, {"US": "USD", "JP": "JPY"}, "USD")
    signals = Signals.from_panel(panel, pd.DataFrame({"US": [0.4], "JP": [0.6]}, ["2019-06-03"]))
    account = Ledger(cash=1000.0).run(signals.orders(panel, money))
    close, rate = panel.select(["US", "JP"]).close.numpy(), rates["JPY"].to_numpy()
    us, jp = 400 / close[1, 0], 600 / (close[1, 1] * rate[1])
    np.testing.assert_allclose(account.units, [[us, jp]])
    np.testing.assert_allclose(account.equity[1:], us * close[1:, 0] + jp * close[1:, 1] * rate[1:])


def test_rates_are_carried_over_days_without_a_session_alone():
    days = pd.to_datetime(["2019-06-06", "2019-06-07", "2019-06-10", "2019-06-11"])
    money = Currencies(pd.DataFrame({"JPY": [0.0091, 0.0092, NAN, 0.0094]}, days), {"JP": "JPY"}, "USD")
    weekend = pd.date_range("2019-06-06", "2019-06-09")
    np.testing.assert_array_equal(money.on(weekend, ["JP"], 0)[:, 0], [0.0091, 0.0092, 0.0092, 0.0092])
    with pytest.raises(DataError, match="no rate of JPY in USD on 2019-06-10"):
        money.on(pd.date_range("2019-06-07", "2019-06-11"), ["JP"], 0)
    assert money.on(pd.date_range("2019-06-07", "2019-06-11"), ["JP"], 4)[-1, 0] == 0.0094
    with pytest.raises(DataError, match="currency of UK is not known"):
        money.on(days, ["UK"], 0)
    with pytest.raises(DataError, match="no rates of GBP"):
        Currencies(pd.DataFrame({"JPY": [1.0]}, days[:1]), {"UK": "GBP"}, "USD")
    with pytest.raises(DataError, match="JPY: rates that are not above 0"):
        Currencies(pd.DataFrame({"JPY": [0.0]}, days[:1]), {"JP": "JPY"}, "USD")


def test_what_is_held_without_a_price_is_named():
    dates, one = pd.DatetimeIndex(["2024-01-02"]), np.array([[1.0, np.nan]])
    orders = Orders(np.array([[0.5, np.nan]]), one, one, "close", "fill", dates, ("A", "B"), pd.DataFrame())
    assert orders.trades(0, np.zeros(2), 100.0) == [(0, 50.0)]
    with pytest.raises(DataError, match="2024-01-02: held before a first price: B"):
        orders.trades(0, np.array([0.0, 3.0]), 100.0)
