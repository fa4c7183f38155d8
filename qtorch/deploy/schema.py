"""What a model is fed: its inputs by name, what each is, its unit and where it comes from."""

import inspect
from collections.abc import Iterator
from typing import Literal, NamedTuple

from qtorch.data import features as f
from qtorch.data.features.market import MarketState
from qtorch.data.window import WindowSpec

Source = Literal["prices", "calendar", "labels", "unknown"]
UNKNOWN = "not known"
_INDICATOR = "1 or 0"
_STEP = "log of calendar days"
_Kind = type[f.Feature]

_UNITS: dict[_Kind, str] = {
    f.Drift: "standard deviations of a mean",
    f.DownsideRatio: "log ratio",
    f.LaterCloses: "volatilities of a session",
    f.RangeRatio: "log ratio",
    f.RangeVariance: "squared decimals a session",
    f.Rank: "from -1 to 1",
    f.Scaled: "volatilities of a session",
    f.TailHistory: "a tenth of an event's mean less a half",
    f.Volatility: "decimals a session (0.01 is 1 %)",
    f.VolatilityLevel: "log of the volatility of a session over 1 %",
    f.VolatilityRatio: "log ratio",
    f.YangZhang: "squared decimals a session",
    f.ZScore: "standard deviations across assets",
    f.DayOfWeek: "a coordinate on the unit circle",
    f.GapDays: _STEP,
    f.MonthEnd: _INDICATOR,
    f.NextGapDays: _STEP,
    f.ToEvent: _STEP,
    f.Label: _INDICATOR,
}
_CALENDAR = (f.DayOfWeek, f.GapDays, f.MonthEnd, f.NextGapDays, f.ToEvent)


class Input(NamedTuple):
    """A column of a model's inputs.

    Attributes:
        name: of the column.
        what: it is, in a sentence.
        unit: of its values.
        source: what it is computed from.
    """

    name: str
    what: str
    unit: str
    source: Source


def inputs_of(spec: WindowSpec) -> list[Input]:
    """The inputs of a model, in the order of the last axis of what it is fed.

    Example:
        >>> first, *_, last = inputs_of(WindowSpec())
        >>> first.name, first.unit
        ('scaled_return_0.94', 'volatilities of a session')
        >>> last.name, last.source
        ('next_gap_days', 'calendar')
    """
    return [column for part in spec.features.parts for column in _columns(part)]


def _columns(feature: f.Feature) -> Iterator[Input]:
    what = (inspect.getdoc(type(feature)) or UNKNOWN).split("\n")[0].rstrip(".:")
    source = _source(feature)
    units = _units(feature)
    for name, unit in zip(feature.names, units, strict=True):
        yield Input(name, what, unit, source)


def _units(feature: f.Feature) -> list[str]:
    """Of each column."""
    count = len(feature.names)
    match feature:
        case MarketState():
            return ["volatilities of a session"] * 2 + ["log ratio"] * (count - 3) + ["log of a volatility"]
        case f.Return():
            return ["log return" if feature.log else "decimals (0.01 is 1 %)"]
        case f.Field():
            return [f"that of the panel's field {feature.name}"]
        case f.Log():
            return [f"log of {unit}" for unit in _units(feature.of)]
        case f.WithIndicator():
            return _units(feature.of) + [_INDICATOR] * (count // 2)
        case f.Rolling() if feature.moment in ("skew", "kurtosis"):
            return ["ratio of moments"] * count
        case f.Absolute() | f.Ewma() | f.Rolling():
            return _units(feature.of)
    return [_UNITS.get(type(feature), UNKNOWN)] * count


def _source(feature: f.Feature) -> Source:
    if isinstance(feature, f.Label):
        return "labels"
    if isinstance(feature, _CALENDAR):
        return "calendar"
    inner = {_source(part) for part in feature.parts()}
    if len(inner) == 1:
        return inner.pop()
    return "prices" if type(feature).__module__.startswith("qtorch.") else "unknown"
