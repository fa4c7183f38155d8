"""What a notebook shows of our objects: true, escaped, small, and quick."""

import html.parser
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Normal

from qtorch import Forecast
from qtorch.backtest import Ledger, Orders, Signals, Walk
from qtorch.calibration.calibrated import CalibratedForecast
from qtorch.data import Panel, State, WindowSource, WindowSpec, sessions
from qtorch.data.card import state_counts
from qtorch.forecast_card import forecast_card
from qtorch.html import card, sparkline, table
from tests.conftest import make_prices

NASTY = "<script>alert('A&B')</script>"
EXCHANGES = {NASTY: "XNYS", "BBB": "XTKS", "CCC": "XNYS", "DDD": "XECB"}


class Balanced(html.parser.HTMLParser):
    """Refuses tags that do not close, scripts, and links to anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "img", "link", "style", "iframe")
        assert not {"src", "href", "onload"} & {name for name, _ in attrs}
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in ("rect", "path")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(text: str) -> str:
    """The words that are read, of HTML that is well formed, without a colour of its own for text or ground."""
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert NASTY not in text
    assert not re.search(r"(?<![-\w])color:(?!inherit)|background:(?!none)", text)
    assert len(text) < 20_000
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


@pytest.fixture(scope="module")
def panel() -> Panel:
    prices = make_prices(EXCHANGES, "2018-01-02", "2019-12-30")
    halted = (prices["asset"] == "CCC") & prices["date"].between("2018-06-01", "2018-06-08")
    return Panel.from_frame(prices[~halted])


def forecast_of(assets: tuple[str, ...], sigma: torch.Tensor, mask: torch.Tensor) -> Forecast:
    """Normal laws; of 2 dates and 2 horizons."""
    law = Normal(torch.zeros(2, 2, len(assets)), sigma.expand(2, 2, -1))
    state = torch.full(mask.shape, int(State.OBSERVED), dtype=torch.uint8)
    return Forecast(law, mask, state, pd.DatetimeIndex(["2024-05-02", "2024-05-03"]), assets, (1, 10))


def test_a_panels_card_counts_its_states(panel):
    counts = state_counts(panel)
    state = panel.state.numpy()
    for s in State:
        by_exchange = [(state[:, np.array(panel.exchange_index) == x] == s).sum() for x in range(counts.shape[2])]
        assert counts[:, s].sum(0).tolist() == by_exchange
    words = checked(panel._repr_html_())
    share = (state == State.MISSING).mean()
    assert f"{share:.2%} missing" in words
    assert "XNYS (2), XTKS (1), XECB (1)" in words
    assert "&lt;script&gt;alert(&#x27;A&amp;B&#x27;)&lt;/script&gt;" in words
    assert panel._repr_html_().count("#e0405a") == 2, "the exchange with missing prices, and the legend"


def test_a_panels_card_is_small_for_a_large_market():
    T, N = 6300, 5000
    dates = pd.date_range("1999-01-04", periods=T, freq="B").as_unit("us")
    sizes = {"values": (T, N, 1), "session_day": (T, N), "exchange_is_session": (T, 40)}
    sizes |= {"exchange_next_day": (T, 40), "exchange_close": (T, 40)}
    kinds = {"values": torch.float64, "exchange_is_session": torch.bool}
    empty = {name: torch.zeros(1, dtype=kinds.get(name, torch.int32)).expand(size) for name, size in sizes.items()}
    codes = tuple(f"X{i:03}" for i in range(40))
    large = Panel(
        **empty, state=torch.randint(0, 4, (T, N), dtype=torch.uint8), dates=dates, as_of=dates.tz_localize("UTC"),
        assets=tuple(f"asset {n}" * 9 for n in range(N)), fields=tuple(f"field {i}" for i in range(50)),
        exchanges=tuple(codes[n % 40] for n in range(N)), exchange_codes=codes, delisted=None, findings=pd.DataFrame(),
    )  # fmt: skip
    checked(large._repr_html_())


def test_a_window_tells_its_layout_and_what_is_usable(panel):
    source = WindowSource(panel, WindowSpec(context=16, horizons=(1, 5)))
    window = source.gather(source.entries()[:8])
    assert repr(window).startswith("Window(layout asset, inputs 8 x 16 x 17, ")
    share = float(window.mask.double().mean())
    assert f"inputs 8 x 16 x 17, {share:.1%} usable" in checked(window._repr_html_())
    assert "tensor(" not in repr(window)


def test_a_forecasts_card_names_the_most_risky_assets():
    sigma = torch.tensor([0.01, 0.04, 0.03, 0.5, 0.02, 0.005, 0.015])
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 3] = False
    forecast = forecast_of(("A", NASTY, "C", "none here", "E", "F", "G"), sigma, mask)
    words = checked(forecast._repr_html_())
    table = words[words.index("most at risk") :]
    assert re.findall(r"(&lt;script|\b[ACEFG]\b) ?[^ ]* \d", table) == ["&lt;script", "C", "E", "G", "A"]
    assert "none here" not in table
    assert f"{float(forecast.value_at_risk(0.99)[1, 0, 1]):.2%}" in table
    assert "13 of 14 dates and assets" in words
    assert "VaR 95%, 1 d" in checked(calibrated(forecast, (0.95,))._repr_html_())
    nothing = replace(forecast, mask=torch.zeros_like(mask))
    assert "0 of 14 dates and assets" in checked(forecast_card(nothing))


def calibrated(forecast: Forecast, levels: tuple[float, ...]) -> CalibratedForecast:
    names = ("distribution", "mask", "state", "dates", "assets", "horizons")
    shape = (len(levels), *forecast.marginals.batch_shape)
    return CalibratedForecast(
        **{name: getattr(forecast, name) for name in names}, levels=levels,
        mass=torch.full(shape, 0.04, dtype=torch.float64), shift=torch.zeros(shape, dtype=torch.float64),
    )  # fmt: skip


def test_a_calibrated_forecast_shows_no_tensors_and_may_be_of_no_level():
    forecast = forecast_of(("A", "B"), torch.tensor([0.01, 0.02]), torch.ones(2, 2, dtype=torch.bool))
    corrected = calibrated(forecast, (0.95,))
    assert repr(corrected) == f"Calibrated{forecast!r}"
    assert repr(forecast).startswith("Forecast(2 dates 2024-05-02..2024-05-03, 2 assets, horizons 1, 10; 4 of 4")
    words = checked(calibrated(forecast, ())._repr_html_())
    assert words.startswith("CalibratedForecast")
    assert "most at risk" not in words
    assert "tensor(" not in checked(corrected._repr_html_())
    for none in (forecast.select(slice(0, 0)), corrected.select(slice(0, 0))):
        assert "dates none" in checked(none._repr_html_())


def test_cards_of_signals_and_orders_are_small_for_a_large_market():
    D, N = 500, 1000
    days = sessions("XNYS", pd.Timestamp("2003-01-02"), pd.Timestamp("2023-12-29")).days[:D]
    values = np.random.default_rng(0).normal(size=(D, N))
    values[::7, ::3] = np.nan
    known = np.broadcast_to(days.to_numpy("M8[us]")[:, None] + np.timedelta64(22, "h"), (D, N)).copy()
    known[0, 0], known[7, 3] = known[0, 0] - np.timedelta64(9, "D"), np.datetime64("2099-01-01", "us")  # of no value
    signals = Signals(values, known, days, tuple(f"asset {n}" for n in range(N)), ("XNYS",) * N)
    orders = Orders(values, np.ones((D, N)), np.ones((D, N)), "close", "fill", days, signals.assets, pd.DataFrame(
        {name: [] for name in ("asset", "date", "value", "reason")}))  # fmt: skip
    checked(orders._repr_html_())
    words = checked(signals._repr_html_())
    there = ~np.isnan(values)
    gross = np.nansum(np.abs(values), 1)
    assert f"{there.sum():,}; {(~there).sum():,} without an order" in words
    assert f"2003-01-02 22:00 to {days[-1]:%Y-%m-%d} 22:00 UTC" in words
    assert f"{gross[-1]:.4g}, {np.nansum(values[-1]):.4g} on the last date; gross {gross.min():.4g} to" in words


def test_signals_orders_account_and_walk(panel):
    panel = panel.select(["BBB", "CCC", NASTY])
    dates = panel.dates[100:110:3]
    weights = pd.DataFrame(np.tile([0.2, -0.5, 0.4], (4, 1)), dates, list(panel.assets))
    weights.iloc[0, 0] = np.nan
    signals = Signals.from_panel(panel, weights)
    words = checked(signals._repr_html_())
    assert "1.1, 0.1 on the last date; gross 0.9 to 1.1" in words
    assert "11; 1 without an order" in words
    assert words.rindex("CCC") < words.rindex("&lt;script") < words.rindex("BBB"), "by size"
    orders = signals.orders(panel)
    assert "11 at the close, sizing fill" in checked(orders._repr_html_())
    account = Ledger().run(orders)
    assert f"to {account.equity[-1]:,.2f}" in checked(account._repr_html_())
    walk = Walk(weights, dates, panel.as_of[100:110:3], dates[[0, 0, 2, 2]])
    words = checked(walk._repr_html_())
    assert "Walk of an allocator" in words
    assert words.rindex("-50.00%") < words.rindex("20.00%")
    assert repr(walk).endswith("2 refits)")


def test_texts_are_escaped_and_cut():
    text = card(NASTY, {NASTY: "x" * 1000}, table([NASTY], [[NASTY]], NASTY))
    assert checked(text).count("&lt;script") == 5
    assert "x" * 200 not in text
    assert sparkline(np.array([np.nan, np.inf]), "none") == ""
    gapped = sparkline(np.array([1.0, 2.0, np.nan, 3.0]), "gap")
    assert gapped.count("M") == 2
    assert len(sparkline(np.random.default_rng(0).normal(size=10_000).cumsum(), "long")) < 2_500
