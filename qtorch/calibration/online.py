"""What calibrators that learn from each outcome share: what was issued, what is known by when, and the state."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from qtorch.calibration.calibrated import CalibratedForecast, require_raw, scale_of
from qtorch.calibration.outcomes import Outcomes, labels_of
from qtorch.calibration.sessions import first_of_session, known_at
from qtorch.calibration.training_set import require_unseen
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast

Correction = tuple[Float64[Tensor, "L H N"], Float64[Tensor, "L H N"]]  # masses, and shifts in units of `scale_of`
_NEVER = -(2**62)
_SPARE = 10  # rows that a market may stay closed beyond twice the horizon before an outcome is given up


@dataclass
class Pending:
    """A date whose outcomes are not all known yet: its day, what was issued for it, and which outcomes are awaited."""

    day: int
    mass: Tensor
    shift: Tensor
    awaited: Tensor


class OnlineCalibrator(ABC):
    """Corrects values at risk by what came of those that it issued, each horizon and level on its own.

    A night calls `update` with the forecasts of the last dates, tonight's last, and their returns as far as they are
    known, then `apply` with tonight's. Dates after the last update are gone through one by one: outcomes known by that
    date are learned from, then a correction is issued. So a forecast over h sessions teaches h own sessions later, and
    nothing before its outcome is known. What is not observed, or has no forecast, teaches nothing. Forecasts that are
    made while an asset is closed are of the same session as that of its last close: of these the first that has an
    outcome teaches, and no other.

    Each asset learns alone, or the assets of a group together. Those have one state, which takes one step on each row
    on which outcomes of some of them become known, by the mean error of these; on a row without any, such as a holiday
    of their market, it stays. An asset that comes has the state of its group from its first night. What a method
    guarantees of an asset's exceedances then holds of the group's mean error over the rows that taught it: if the same
    number of members has an outcome on each, that is the group's share of exceedances; else it is the mean of the rows'
    shares, in which a row of few members counts as much as one of many. Nothing is guaranteed of a single member.

    Args:
        levels: confidence levels, such as 0.99.
        groups: by asset, the label of its group (an exchange, a sector), None for an asset of its own; others may be
            named too. Each asset on its own by default.
        trained_through: the last as-of date that the model's fit used; updates of dates not after it are refused. None
            where nothing was fitted, or each date has a model trained before it.

    Raises:
        ValueError: levels are none, repeated or not inside (0, 1).
    """

    own_state: tuple[str, ...] = ()  # names of the tensors of the state that each asset of a group has to itself

    def __init__(
        self,
        levels: Sequence[float],
        groups: Mapping[str, str | None] | None = None,
        trained_through: str | pd.Timestamp | None = None,
    ) -> None:
        self.levels = tuple(levels)
        inside = all(0 < level < 1 for level in self.levels)
        distinct = len(set(self.levels)) == len(self.levels) > 0
        require(inside and distinct, "levels", self.levels, "give different confidences inside (0, 1), such as 0.99")
        self.trained_through = None if trained_through is None else pd.Timestamp(trained_through)
        self.groups = None if groups is None else dict(groups)
        self._assets: tuple[str, ...] = ()
        self._labels: tuple[str | None, ...] = ()
        self._horizons: tuple[int, ...] = ()
        self._state: dict[str, Tensor] = {}
        self._pending: list[Pending] = []
        self._through = _NEVER

    def update(
        self,
        forecast: Forecast,
        returns: Float[Tensor, "D H N"],
        known: Int64[Tensor, "D H N"] | None = None,
    ) -> None:
        """Learns from outcomes and issues the corrections of the dates that are new.

        Args:
            forecast: raw, of rows that follow each other in the panel: all dates whose outcomes are awaited (see
                `awaited`) and the new ones. Assets may have come since; those that have gone are forgotten.
            returns: what came over each horizon, in decimals; NaN where not observed. What is known only after a date
                does not touch what is issued on it.
            known: the position among the forecast's dates on which a return is known, their number or more where on
                none of them; by default counted in sessions on which the asset is observed, by the forecast's `state`.

        Raises:
            ValueError: dates do not increase, are trained on or lack awaited ones; shapes or horizons differ; an asset
                has no label; the forecast has been corrected already.
        """
        for _ in self.walk(forecast, returns, known):
            pass

    def apply(self, forecast: Forecast) -> CalibratedForecast:
        """The forecast corrected by what is known now; the same correction for each of its dates.

        Raises:
            ValueError: its horizons are not those of the updates, an asset has no label, or it has been corrected
                already.
        """
        require_raw(forecast, "a calibrator")
        mass, shift = self._issue(self._aligned(forecast), self._group(forecast))
        return corrected(forecast, self.levels, mass[:, None], shift[:, None])

    @property
    def awaited(self) -> pd.DatetimeIndex:
        """Dates of which outcomes are awaited: the forecasts of the next update start with them."""
        return _dates(np.array([item.day for item in self._pending], dtype=np.int64))

    def walk(
        self,
        forecast: Forecast,
        returns: Float[Tensor, "D H N"],
        known: Int64[Tensor, "D H N"] | None = None,
    ) -> Iterator[tuple[int, Correction]]:
        """Does what `update` does and gives each new date's position and what was issued, before later outcomes."""
        require_raw(forecast, "a calibrator")
        days = _days(forecast.dates)
        new = days > self._through
        shape = (len(days), len(forecast.horizons), len(forecast.assets))
        if tuple(returns.shape) != shape:
            raise ArgumentError(f"returns are {tuple(returns.shape)}, and the forecast has [D, H, N] = {list(shape)}.")
        if (np.diff(days) <= 0).any():
            raise ArgumentError("the forecast's dates must increase: each is issued after the outcomes known by then.")
        require_unseen(forecast.dates[new], self.trained_through)
        place = {day: n for n, day in enumerate(days.tolist())}
        if missing := [item.day for item in self._pending if item.day not in place]:
            first = _dates(np.array(missing[:1]))[0]
            raise ArgumentError(
                f"outcomes of {len(missing)} earlier dates are awaited, which the forecast lacks, the first "
                f"{first:%Y-%m-%d}. Give the forecasts from that date on."
            )
        known = known_at(forecast.state, forecast.horizons) if known is None else known
        self._state = self._aligned(forecast)
        self._adopt(forecast)
        used = np.flatnonzero(new)
        if len(self._pending):
            used = np.concatenate([[place[item.day] for item in self._pending], used])
        if not len(used):
            return
        start = int(used[0])
        group = self._group(forecast)
        pit, excess = self._outcomes(forecast.select(slice(start, None)), returns[start:])
        counts = first_of_session(forecast.state[start:], excess.isfinite().all(0))
        patience = 2 * max(forecast.horizons) + _SPARE
        for t in np.flatnonzero(new).tolist():
            came: Outcomes | None = None
            for item in self._pending:
                p = place[item.day]
                due = item.awaited & (known[p] <= t)
                there = due & counts[p - start]
                item.awaited = item.awaited & ~due
                if not there.any():
                    continue
                if came is not None and (came.mask & there).any():  # two outcomes of an asset on a row are two steps
                    self._state, came = self._learn(self._state, came), None
                outcomes = Outcomes(
                    group,
                    there,
                    torch.where(there, pit[p - start], 0.5),
                    torch.where(there, excess[:, p - start], 0.0),
                    item.mass,
                    item.shift,
                )
                came = outcomes if came is None else came.joined(outcomes)
            if came is not None:
                self._state = self._learn(self._state, came)
            self._pending = [item for item in self._pending[-patience:] if item.awaited.any()]
            mass, shift = self._issue(self._state, group)
            awaited = forecast.mask[t].expand(shape[1:]).clone()
            self._pending.append(Pending(int(days[t]), mass, shift, awaited))
            self._through = int(days[t])
            yield t, (mass, shift)

    def state_dict(self) -> dict[str, Any]:
        """Everything that was learned and is awaited: tensors, and plain str, int, float and lists of them."""
        L, H, N = len(self.levels), len(self._horizons), len(self._assets)
        items = self._pending

        def stacked(tensors: list[Tensor], empty: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.stack(tensors) if tensors else torch.empty((0, *empty), dtype=dtype)

        return {
            "method": type(self).__name__,
            "levels": list(self.levels),
            "assets": list(self._assets),
            "groups": list(self._labels),
            "horizons": list(self._horizons),
            "through": self._through,
            "pending.day": torch.tensor([item.day for item in items], dtype=torch.int64),
            "pending.mass": stacked([item.mass for item in items], (L, H, N), torch.float64),
            "pending.shift": stacked([item.shift for item in items], (L, H, N), torch.float64),
            "pending.awaited": stacked([item.awaited for item in items], (H, N), torch.bool),
            **{f"state.{name}": value.clone() for name, value in self._state.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the place of what was learned.

        Raises:
            ValueError: it is another method's or of other levels, an asset had another group, or it lacks a part.
        """
        own = {"method": type(self).__name__, "levels": list(self.levels)}
        for name, mine in own.items():
            if state.get(name) != mine:
                raise ArgumentError(f"the state has {name} {state.get(name)!r}, and this calibrator {mine!r}.")
        for asset, label in zip(state["assets"], state["groups"], strict=True):
            now = None if self.groups is None else self.groups.get(asset, label)
            if now != label:
                raise ArgumentError(f"the state has {asset} in the group {label!r}, and this calibrator in {now!r}.")
        H, N = len(state["horizons"]), len(state["assets"])
        fresh = self._initial(H, N) if N else {}
        learned: dict[str, Tensor] = {name: state[f"state.{name}"] for name in fresh if f"state.{name}" in state}
        for name, value in fresh.items():
            shape = tuple(learned[name].shape) if name in learned else None
            if shape != tuple(value.shape):
                raise ArgumentError(
                    f"the state's {name!r} is {shape}, not {tuple(value.shape)}: it was saved with other settings."
                )
        self._assets, self._horizons = tuple(state["assets"]), tuple(state["horizons"])
        self._labels = tuple(state["groups"])
        self._through = int(state["through"])
        self._state = {name: value.clone() for name, value in learned.items()}
        parts = zip(*(state[f"pending.{name}"] for name in ("day", "mass", "shift", "awaited")), strict=True)
        self._pending = [Pending(int(day), *(x.clone() for x in rest)) for day, *rest in parts]

    def _masses(self, like: Tensor | None = None) -> Float64[Tensor, "L 1 1"]:
        """The nominal left-tail masses."""
        device = None if like is None else like.device
        return torch.tensor([1 - level for level in self.levels], dtype=torch.float64, device=device)[:, None, None]

    @abstractmethod
    def _initial(self, H: int, N: int) -> dict[str, Tensor]:
        """The state before any outcome, on the CPU: tensors whose last dimension is the assets."""

    @abstractmethod
    def _issue(self, state: dict[str, Tensor], group: Int64[Tensor, " N"]) -> Correction:
        """The masses and shifts that the state says; groups as of `Outcomes`."""

    @abstractmethod
    def _learn(self, state: dict[str, Tensor], outcomes: Outcomes) -> dict[str, Tensor]:
        """The state after outcomes, the same where none taught."""

    def _outcomes(self, forecast: Forecast, returns: Tensor) -> tuple[Tensor, Tensor]:
        """Transforms `[D, H, N]`, and losses beyond the raw VaR `[L, D, H, N]` in units of the scale; NaN for none."""
        raw = torch.stack([forecast.value_at_risk(level) for level in self.levels])
        return forecast.pit(returns), (-returns.double() - raw) / scale_of(forecast)

    def _aligned(self, forecast: Forecast) -> dict[str, Tensor]:
        """The state of the forecast's assets; of those that are new their group's, or else the initial one."""
        if self._horizons and forecast.horizons != self._horizons:
            raise ArgumentError(f"the forecast's horizons are {forecast.horizons}, and the state's {self._horizons}.")
        device = forecast.mask.device
        fresh = self._initial(len(forecast.horizons), len(forecast.assets))
        own = _match(self._assets, forecast.assets)
        shared = _match(_series(self._labels, self._assets), _series(self._named(forecast), forecast.assets))
        result = {}
        for name, value in fresh.items():
            if name in self._state:
                index, there = own if name in self.own_state else shared
                value = torch.where(there, self._state[name].cpu()[..., index], value)
            result[name] = value.to(device)
        return result

    def _group(self, forecast: Forecast) -> Int64[Tensor, " N"]:
        return labels_of(self.groups, forecast.assets).to(forecast.mask.device)

    def _named(self, forecast: Forecast) -> tuple[str | None, ...]:
        return tuple(None if self.groups is None else self.groups.get(asset) for asset in forecast.assets)

    def _adopt(self, forecast: Forecast) -> None:
        """Makes what is awaited that of the forecast's assets."""
        if self._assets and forecast.assets != self._assets:
            index, there = _match(self._assets, forecast.assets)
            for item in self._pending:
                item.mass, item.shift = item.mass.cpu()[..., index], item.shift.cpu()[..., index]
                item.awaited = item.awaited.cpu()[..., index] & there
        device = forecast.mask.device
        for item in self._pending:
            item.mass, item.shift, item.awaited = (x.to(device) for x in (item.mass, item.shift, item.awaited))
        self._assets, self._labels, self._horizons = forecast.assets, self._named(forecast), forecast.horizons


def corrected(forecast: Forecast, levels: tuple[float, ...], mass: Tensor, shift: Tensor) -> CalibratedForecast:
    """A forecast with corrections `[L, D or 1, H, N]`, shifts in units of its scale."""
    shape = (len(levels), len(forecast.dates), len(forecast.horizons), len(forecast.assets))
    unit = scale_of(forecast).nan_to_num(0.0)
    return CalibratedForecast(
        forecast.distribution,
        forecast.mask,
        forecast.state,
        forecast.dates,
        forecast.assets,
        forecast.horizons,
        levels,
        mass.expand(shape),
        shift.expand(shape) * unit,
    )


def _series(labels: Sequence[str | None], assets: Sequence[str]) -> list[tuple[str, str]]:
    """What has a state: the group of each asset, or the asset itself."""
    return [("asset", a) if label is None else ("group", label) for label, a in zip(labels, assets, strict=True)]


def _match(old: Sequence[Hashable], new: Sequence[Hashable]) -> tuple[Tensor, Tensor]:
    """Where each new name first stands among the old, 0 if it does not, and whether it does."""
    place = {name: n for n, name in reversed(list(enumerate(old)))}
    index = torch.tensor([place.get(name, 0) for name in new], dtype=torch.int64)
    return index, torch.tensor([name in place for name in new])


def _days(dates: pd.DatetimeIndex) -> np.ndarray:
    return dates.to_numpy().astype("M8[D]").astype(np.int64)


def _dates(days: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(days.astype("M8[D]"))
