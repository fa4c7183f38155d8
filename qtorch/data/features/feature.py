"""What a feature is: a causal transform of a panel, of an asset's own sessions or across the assets of a date."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from qtorch.data.calendars import day_number
from qtorch.data.features.sums import Sums
from qtorch.data.features.windowed import ewma
from qtorch.data.panel import Panel
from qtorch.errors import ArgumentError

BLOCK = 256  # assets handled at once: their sessions fit a processor's cache better than all, and memory always


class OwnSessions:
    """Some assets' own sessions without the holes, left-aligned: entry i of an asset is its i-th observed return.

    All arrays are float64 `[N, L]`, NaN from an asset's length on. With `sums` of an earlier run the first entries of
    each asset are left out, and all arrays begin with the one after them.

    Attributes:
        panel: of these assets.
        row: the panel row of each entry, `T` beyond the length.
        entry: the number of each entry `[N, L]`, 0 for the asset's first return.
        length: entries of each asset `[N]`, those that are left out not among them.
        inside: where there is an entry.
        returns: simple returns.
    """

    def __init__(self, panel: Panel, sums: Sums | None = None) -> None:
        self.panel, self._sums = panel, sums
        there = np.ascontiguousarray(panel.mask.cpu().numpy().T)
        N, self.T = there.shape
        count = there.sum(1)
        skipped = np.zeros(N, dtype=np.int64) if sums is None else sums.skipped
        self.length = np.maximum(count - 1 - skipped, 0)
        ahead = np.arange(max(1, self.length.max(initial=0)))
        self.inside = ahead < self.length[:, None]
        self.entry = skipped[:, None] + ahead
        observed = np.nonzero(there)[1]
        place = ((count.cumsum() - count + skipped)[:, None] + ahead)[self.inside]  # of the close before each entry
        self._asset = np.nonzero(self.inside)[0]
        self._before, self._row = observed[place], observed[place + 1]
        self.row = np.full(self.inside.shape, self.T)
        self.row[self.inside] = self._row
        self._memory: dict[Any, np.ndarray] = {}
        self.returns = self.field("close") / self.before("close") - 1

    def take(self, grid: np.ndarray) -> np.ndarray:
        """Values of a grid `[T, N]` at the entries."""
        return self._put(grid[self._row, self._asset])

    def scatter(self, own: np.ndarray, first: int = 0) -> np.ndarray:
        """The inverse of `take`: entries `[N, L, ...]` on a grid `[T, N, ...]`, NaN where there is none.

        Args:
            own: values at the entries.
            first: the first row of the grid that is asked for; it has ``T - first``.
        """
        grid = np.full((self.T - first, *own.shape[:1], *own.shape[2:]), np.nan)
        within = self._row >= first
        grid[self._row[within] - first, self._asset[within]] = own[self.inside][within]
        return grid

    def field(self, name: str) -> np.ndarray:
        """A field of the panel at the entries, NaN where the source lacks it."""
        return self.of(("field", name), lambda: self.take(self._values(name)))

    def before(self, name: str) -> np.ndarray:
        """A field at the close before each entry's."""
        return self.of(("before", name), lambda: self._put(self._values(name)[self._before, self._asset]))

    @cached_property
    def day(self) -> np.ndarray:
        """The label of each entry's session, in days since 1970."""
        return self.take(self.panel.session_day.cpu().numpy())

    @cached_property
    def day_before(self) -> np.ndarray:
        """The label of the session of the close before each entry's."""
        return self._put(self.panel.session_day.cpu().numpy()[self._before, self._asset])

    def ewma(self, x: np.ndarray, decay: float, reach: int | None = 0) -> np.ndarray:
        """The exponentially weighted mean along the entries of `[N, L, F]`; see `qtorch.data.features.windowed.ewma`.

        It goes on from the sums of an earlier run, where entries are left out.

        Args:
            x: a series.
            decay: weight of an entry over that of the next.
            reach: how many entries before it an entry of the series is made of, as of `Feature.reach`.
        """
        if self._sums is None:
            return ewma(x, decay)
        assert reach is not None  # of features that do not tell theirs all entries are here
        return self._sums.mean(x, decay, reach)

    @cached_property
    def next_day(self) -> np.ndarray:
        """The label of the session of the asset's exchange after each entry's own, which calendars tell ahead.

        The panel's first row tells of no session before it, which late data may hold: there, sessions are taken to be
        on every weekday.
        """
        first = int(day_number(self.panel.dates[0]))
        early = np.arange(np.min(self.day, where=self.inside, initial=first), first + 1)
        early = early[np.is_busday(early.astype("M8[D]"))]
        upcoming, exchange = self.panel.exchange_next_day.cpu().numpy(), np.array(self.panel.exchange_index, dtype=int)
        out = np.full_like(self.day, np.nan)
        for x in np.unique(exchange):
            ahead = np.unique(upcoming[:, x])  # each session is the next one at some row, save those known with another
            days = np.concatenate([early[early < ahead[0]], ahead])
            after = days.searchsorted(self.day[exchange == x], side="right")
            out[exchange == x] = days.take(after, mode="clip")
        return np.where(self.inside, out, np.nan)

    def _values(self, name: str) -> np.ndarray:
        """A field on the panel's grid `[T, N]`, also where nothing is observed."""
        return self.panel.values[:, :, self.panel.field_index(name)].cpu().numpy()

    def _put(self, values: np.ndarray) -> np.ndarray:
        """One value after the other at the entries."""
        out = np.full(self.inside.shape, np.nan)
        out[self.inside] = values
        return out

    def of(self, key: Any, make: Any) -> np.ndarray:
        """What `make` returns, made once for a key."""
        if key not in self._memory:
            self._memory[key] = make()
        return self._memory[key]


@dataclass(frozen=True)
class FeatureBlock:
    """A feature on a panel's rows.

    Attributes:
        values: float64, NaN where masked.
        mask: where a value is there and its look-back is over.
        names: of the last axis.
    """

    values: Float64[Tensor, "T N F"]
    mask: Bool[Tensor, "T N F"]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Feature(ABC):
    """A causal transform ``panel -> [T, N, F]``: a row's value comes from that row and the rows before it alone.

    A subclass is a frozen dataclass of its settings, which may be features themselves. It says the `names` of its
    columns, how far it looks back (by a setting `min_sessions`, or a `lookback` of its own), and computes `own`.
    """

    min_sessions = 0

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Of the columns, `F` of them."""

    @property
    def lookback(self) -> int:
        """The number of an asset's own returns that come before its first usable value."""
        return self.min_sessions + max((part.lookback for part in self.parts()), default=0)

    @property
    def reach(self) -> int | None:
        """How many entries before one its value is made of, beside what `OwnSessions.ewma` sums up.

        A class that says so can be computed from where an earlier run ended. None, where it does not, says that a value
        may be made of all entries before; what a parent class says holds for its own `own` alone.
        """
        return None

    @abstractmethod
    def own(self, sessions: OwnSessions) -> np.ndarray:
        """The values at the entries of own sessions, float64 `[N, L, F]`, NaN where there is none."""

    def parts(self) -> Iterator["Feature"]:
        """The features among the settings."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, Feature):
                yield value

    def __call__(self, panel: Panel) -> FeatureBlock:
        """The feature on all rows of a panel, NaN and masked where an asset is not observed or its look-back runs."""
        blocks = [self._of_block(panel.select(panel.assets[n : n + BLOCK])) for n in range(0, len(panel.assets), BLOCK)]
        return _block(torch.from_numpy(np.concatenate(blocks, axis=1)).to(panel.values.device), self.names)

    def _of_block(self, panel: Panel) -> np.ndarray:
        sessions = OwnSessions(panel)
        values = self.own(sessions)
        values[sessions.entry < self.lookback] = np.nan
        return sessions.scatter(values)

    def to_dict(self) -> dict[str, Any]:
        """The feature as plain values, for `from_dict`."""
        settings = {}
        for setting in fields(self):
            value = getattr(self, setting.name)
            settings[setting.name] = value.to_dict() if isinstance(value, Feature) else value
        return {"feature": f"{type(self).__module__}.{type(self).__qualname__}", **settings}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> "Feature":
        """The inverse of `to_dict`. A class that is not qtorch's own must have been imported before.

        Raises:
            ValueError: there is no such feature.
        """
        path = plain["feature"]
        known = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in _subclasses(Feature)}  # type: ignore[type-abstract]
        if path not in known:
            raise ArgumentError(f"no feature {path!r} is known. If it is your own, import its module first.")
        settings = {
            name: Feature.from_dict(value)
            if isinstance(value, Mapping)
            else tuple(value)
            if isinstance(value, list)
            else value
            for name, value in plain.items()
            if name != "feature"
        }
        return known[path](**settings)


class CrossSection(Feature):
    """A feature that compares or joins the assets of a date.

    It is computed from `bases`, features of own sessions, on the rows on which each asset is observed. Where a row's
    values are made of the rows before it too, a class that is to go on from an earlier run splits `across` into
    `by_row`, what each row comes to by itself, and `over_rows`, and sets `carries`.
    """

    carries = False

    @property
    @abstractmethod
    def bases(self) -> tuple[Feature, ...]:
        """Features of one column each."""

    @abstractmethod
    def across(self, base: list[np.ndarray], panel: Panel) -> np.ndarray:
        """The values on a grid.

        Args:
            base: of each base the values `[T, N]`, NaN where an asset is not observed.
            panel: the market, for what its exchanges tell.

        Returns:
            float `[T, N, F]`, or `[T, 1, F]` where the assets share a value.
        """

    def by_row(self, base: list[np.ndarray], panel: Panel) -> np.ndarray:
        """What each row comes to by itself `[T, ...]`; arguments as of `across`."""
        return self.across(base, panel)

    def over_rows(self, by_row: np.ndarray) -> np.ndarray:
        """The values, as of `across`, from what the rows come to; from all rows up to now where it `carries`."""
        return by_row

    def own(self, sessions: OwnSessions) -> np.ndarray:
        """Not defined on a part of the assets; see `across`."""
        raise TypeError(
            f"{type(self).__name__} looks across the assets of a date, so that no feature of an asset's own sessions "
            "can be made of it. Take the own feature first, then look across."
        )

    def __call__(self, panel: Panel) -> FeatureBlock:
        """The feature on all rows of a panel, NaN and masked where an asset is not observed or its look-back runs."""
        base = [feature(panel).values.squeeze(-1).cpu().numpy() for feature in self.bases]
        values = torch.from_numpy(np.array(self.across(base, panel), dtype=np.float64))
        seen = torch.from_numpy(~np.isnan(np.stack(base)).any(0)).unsqueeze(-1)
        values = torch.where(seen, values.expand(*seen.shape[:2], -1), torch.nan)
        return _block(values.to(panel.values.device), self.names)


def reach_of(feature: Feature) -> int | None:
    """The reach of a feature, those of its bases with it; None where the class that computes it does not tell it."""
    computes = "across" if isinstance(feature, CrossSection) else "own"
    maker = next(cls for cls in type(feature).__mro__ if computes in vars(cls))
    if "reach" not in vars(maker):
        return None
    return feature.reach


def furthest(features: Iterable[Feature]) -> int | None:
    """The longest reach of some features; None where one does not tell its own."""
    found = [reach_of(feature) for feature in features]
    known = [reach for reach in found if reach is not None]
    return max(known, default=0) if len(known) == len(found) else None


def one_column(feature: Feature, user: str) -> None:
    """Refuses a feature with several columns where one is needed.

    Raises:
        ValueError: it has several.
    """
    if len(feature.names) != 1:
        raise ArgumentError(f"{user} takes a feature of one column, not of {len(feature.names)}: {feature.names}.")


def _block(values: Float64[Tensor, "T N F"], names: tuple[str, ...]) -> FeatureBlock:
    return FeatureBlock(values, values.isfinite(), names)


def _subclasses(cls: type[Feature]) -> Iterator[type[Feature]]:
    for child in cls.__subclasses__():
        if not inspect.isabstract(child):
            yield child
        yield from _subclasses(child)
