"""A forecast as a notebook shows it."""

from qtorch.data.errors import listing
from qtorch.data.states import State
from qtorch.forecast import Forecast
from qtorch.html import card, table

_ASSETS = 5
_VAR, _ES = 0.99, 0.975


def forecast_card(forecast: Forecast) -> str:
    """A forecast's facts, and the most risky assets on its latest date; measures are made of that date alone."""
    law = type(forecast.distribution).__name__
    dates = forecast.dates
    facts = {
        "dates": f"{len(dates):,}, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}" if len(dates) else "none",
        "assets": f"{len(forecast.assets):,}: {listing(forecast.assets)}",
        "horizons": f"{listing(forecast.horizons, most=12)}, in own sessions",
        "law": f"{law}, {'joint' if forecast.distribution.event_shape else 'of each asset'}",
        "forecast": f"{int(forecast.mask.sum()):,} of {forecast.mask.numel():,} dates and assets",
    }
    if not len(dates):
        return card(type(forecast).__name__, facts)
    last = forecast.select(slice(len(dates) - 1, len(dates)))
    state = last.state[0].cpu()
    counts = {each.name.lower(): int((state == each).sum()) for each in State}
    facts["latest date"] = listing([f"{number:,} {name}" for name, number in counts.items() if number])
    return card(type(forecast).__name__, facts, _riskiest(last))


def _riskiest(last: Forecast) -> str:
    """The value at risk and expected shortfall of the assets that have most of them, at each horizon."""
    levels = getattr(last, "levels", (_VAR, _ES))  # those that a calibrated forecast has
    if not levels or not last.horizons:
        return ""
    var, es = (min(levels, key=lambda level, to=to: abs(level - to)) for to in (_VAR, _ES))
    at_risk, shortfall = (each[0].cpu() for each in (last.value_at_risk(var), last.expected_shortfall(es)))
    order = at_risk[0].nan_to_num(nan=-float("inf")).argsort(descending=True, stable=True)
    shown = [int(n) for n in order[:_ASSETS] if last.mask[0, n]]
    if not shown:
        return ""
    horizons = range(min(len(last.horizons), 3))
    columns = ["asset"]
    for h in horizons:
        columns += [f"VaR {100 * var:g}%, {last.horizons[h]} d", f"ES {100 * es:g}%, {last.horizons[h]} d"]
    rows = [[last.assets[n], *(f"{float(x[h, n]):.2%}" for h in horizons for x in (at_risk, shortfall))] for n in shown]
    return table(columns, rows, f"most at risk on {last.dates[0]:%Y-%m-%d}, losses positive")
