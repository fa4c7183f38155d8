"""What a feature is: a causal transform of a panel, of an asset's own sessions or across the assets of a date."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from qtorch.data.calendars import NO_SESSION, day_number
from qtorch.data.panel import Panel
from qtorch.errors import ArgumentError

BLOCK = 256  # assets handled at once: their sessions fit a processor's cache better than all, and memory always


class OwnSessions:
    """Some assets' own sessions without the holes, left-aligned: entry i of an asset is its i-th observed return.

    All arrays are float64 `[N, L]`, NaN from an asset's length on.

    Attributes:
        panel: of these assets.
        row: the panel row of each entry, `T` beyond the length.
        length: entries of each asset `[N]`.
        inside: where there is an entry.
        returns: simple returns.
    """

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        returns = panel.returns().cpu().numpy()
        self.T, N = returns.shape
        there = np.ascontiguousarray(~np.isnan(returns).T)
        self.length = there.sum(1)
        self.inside = np.arange(max(1, self.length.max(initial=0))) < self.length[:, None]
        self.row = np.full(self.inside.shape, self.T)
        self.row[self.inside] = np.nonzero(there)[1]
        self._asset = np.arange(N)[:, None]
        self.returns = self.take(returns)
        self._memory: dict[Any, np.ndarray] = {}

    def take(self, grid: np.ndarray) -> np.ndarray:
        """Values of a grid `[T, N]` at the entries."""
        out = np.full(self.row.shape, np.nan)
        t, n = self.row[self.inside], np.broadcast_to(self._asset, self.row.shape)[self.inside]
        out[self.inside] = grid[t, n]
        return out

    def scatter(self, own: np.ndarray) -> np.ndarray:
        """The inverse of `take`: entries `[N, L, ...]` on a grid `[T, N, ...]`, NaN where there is none."""
        grid = np.full((self.T, *own.shape[:1], *own.shape[2:]), np.nan)
        t, n = self.row[self.inside], np.broadcast_to(self._asset, self.row.shape)[self.inside]
        grid[t, n] = own[self.inside]
        return grid

    def field(self, name: str) -> np.ndarray:
        """A field of the panel at the entries, NaN where the source lacks it."""
        return self.of(("field", name), lambda: self.take(self.panel.field(name).cpu().numpy()))

    def before(self, name: str) -> np.ndarray:
        """A field at the close before each entry's."""

        def first() -> np.ndarray:
            own = self.field(name)
            price = self.panel.field(name).cpu().numpy()
            row = np.where(self.panel.mask.cpu().numpy(), np.arange(self.T)[:, None], self.T).min(0)
            initial = price[np.minimum(row, self.T - 1), np.arange(price.shape[1])]
            return np.where(self.inside, np.concatenate([initial[:, None], own[:, :-1]], axis=1), np.nan)

        return self.of(("before", name), first)

    @cached_property
    def day(self) -> np.ndarray:
        """The label of each entry's session, in days since 1970."""
        return self.take(self.panel.session_day.cpu().numpy().astype(float))

    @cached_property
    def day_before(self) -> np.ndarray:
        """The label of the session of the close before each entry's."""
        day = self.panel.session_day.cpu().numpy()
        observed = np.where(self.panel.mask.cpu().numpy(), day, NO_SESSION)
        latest = np.maximum.accumulate(observed, axis=0)
        return self.take(np.vstack([np.full((1, day.shape[1]), NO_SESSION), latest[:-1]]).astype(float))

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
        values[:, : self.lookback] = np.nan
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

    It is computed from `bases`, features of own sessions, on the rows on which each asset is observed.
    """

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
