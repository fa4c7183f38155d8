"""What calibrators that learn from each outcome share: what was issued, what is known by when, and the state."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor

from qtorch.calibration.calibrated import CalibratedForecast, require_raw, scale_of
from qtorch.calibration.training_set import require_unseen
from qtorch.data.states import State
from qtorch.distributions.checks import require
from qtorch.forecast import Forecast

Correction = tuple[Float64[Tensor, "L H N"], Float64[Tensor, "L H N"]]  # masses, and shifts in units of `scale_of`
_NEVER = -(2**62)
_SPARE = 10  # rows that a market may stay closed beyond twice the horizon before an outcome is given up


@dataclass(frozen=True)
class Outcomes:
    """What is learned of one past date.

    Attributes:
        mask: what became known now and counts; elsewhere the others are placeholders.
        pit: of the outcome under the raw law.
        excess: of the loss over the raw VaR of each level, in units of the forecast's scale.
        mass: that was issued, the clamped one.
        shift: that was issued, in units of the forecast's scale.
    """

    mask: Bool[Tensor, "H N"]
    pit: Float64[Tensor, "H N"]
    excess: Float64[Tensor, "L H N"]
    mass: Float64[Tensor, "L H N"]
    shift: Float64[Tensor, "L H N"]


@dataclass
class Pending:
    """A date whose outcomes are not all known yet: its day, what was issued for it, and which outcomes are awaited."""

    day: int
    mass: Tensor
    shift: Tensor
    awaited: Tensor


class OnlineCalibrator(ABC):
    """Corrects values at risk by what came of those that it issued, each asset, horizon and level on its own.

    A night calls `update` with the forecasts of the last dates, tonight's last, and their returns as far as they are
    known, then `apply` with tonight's. Dates after the last update are gone through one by one: outcomes known by that
    date are learned from, then a correction is issued. So a forecast over h sessions teaches h own sessions later, and
    nothing before its outcome is known. What is not observed, or has no forecast, teaches nothing. Forecasts that are
    made while an asset is closed are of the same session as that of its last close: of these the first that has an
    outcome teaches, and no other.

    Args:
        levels: confidence levels, such as 0.99.
        trained_through: the last as-of date that the model's fit used; updates of dates not after it are refused. None
            where nothing was fitted, or each date has a model trained before it.

    Raises:
        ValueError: levels are none, repeated or not inside (0, 1).
    """

    def __init__(self, levels: Sequence[float], trained_through: str | pd.Timestamp | None = None) -> None:
        self.levels = tuple(levels)
        inside = all(0 < level < 1 for level in self.levels)
        distinct = len(set(self.levels)) == len(self.levels) > 0
        require(inside and distinct, "levels", self.levels, "give different confidences inside (0, 1), such as 0.99")
        self.trained_through = None if trained_through is None else pd.Timestamp(trained_through)
        self._assets: tuple[str, ...] = ()
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
            ValueError: dates do not increase, are trained on or lack awaited ones; shapes or horizons differ; the
                forecast has been corrected already.
        """
        for _ in self.walk(forecast, returns, known):
            pass

    def apply(self, forecast: Forecast) -> CalibratedForecast:
        """The forecast corrected by what is known now; the same correction for each of its dates.

        Raises:
            ValueError: its horizons are not those of the updates, or it has been corrected already.
        """
        require_raw(forecast, "a calibrator")
        state = self._aligned(forecast)
        mass, shift = self._issue(state)
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
            raise ValueError(f"returns are {tuple(returns.shape)}, and the forecast has [D, H, N] = {list(shape)}.")
        if (np.diff(days) <= 0).any():
            raise ValueError("the forecast's dates must increase: each is issued after the outcomes known by then.")
        require_unseen(forecast.dates[new], self.trained_through)
        place = {day: n for n, day in enumerate(days.tolist())}
        if missing := [item.day for item in self._pending if item.day not in place]:
            first = _dates(np.array(missing[:1]))[0]
            raise ValueError(
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
        sessions = _sessions(forecast.state)
        pit, excess = self._outcomes(forecast.select(slice(start, None)), returns[start:])
        patience = 2 * max(forecast.horizons) + _SPARE
        for t in np.flatnonzero(new).tolist():
            for k, item in enumerate(self._pending):
                p = place[item.day]
                due = item.awaited & (known[p] <= t)
                if not due.any():
                    continue
                there = due & excess[:, p - start].isfinite().all(0)
                outcomes = Outcomes(
                    there,
                    torch.where(there, pit[p - start], 0.5),
                    torch.where(there, excess[:, p - start], 0.0),
                    item.mass,
                    item.shift,
                )
                if there.any():
                    self._state = self._learn(self._state, outcomes)
                item.awaited = item.awaited & ~due
                for later in self._pending[k + 1 :]:
                    same = sessions[place[later.day]] == sessions[p]
                    if not same.any():
                        break
                    later.awaited = later.awaited & ~(there & same)
            self._pending = [item for item in self._pending[-patience:] if item.awaited.any()]
            mass, shift = self._issue(self._state)
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
            ValueError: it is another method's or of other levels, or lacks a part.
        """
        own = {"method": type(self).__name__, "levels": list(self.levels)}
        for name, mine in own.items():
            if state.get(name) != mine:
                raise ValueError(f"the state has {name} {state.get(name)!r}, and this calibrator {mine!r}.")
        H, N = len(state["horizons"]), len(state["assets"])
        fresh = self._initial(H, N) if N else {}
        learned: dict[str, Tensor] = {name: state[f"state.{name}"] for name in fresh if f"state.{name}" in state}
        for name, value in fresh.items():
            shape = tuple(learned[name].shape) if name in learned else None
            if shape != tuple(value.shape):
                raise ValueError(
                    f"the state's {name!r} is {shape}, not {tuple(value.shape)}: it was saved with other settings."
                )
        self._assets, self._horizons = tuple(state["assets"]), tuple(state["horizons"])
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
    def _issue(self, state: dict[str, Tensor]) -> Correction:
        """The masses and shifts that the state says."""

    @abstractmethod
    def _learn(self, state: dict[str, Tensor], outcomes: Outcomes) -> dict[str, Tensor]:
        """The state after outcomes, the same where they are masked."""

    def _outcomes(self, forecast: Forecast, returns: Tensor) -> tuple[Tensor, Tensor]:
        """Transforms `[D, H, N]`, and losses beyond the raw VaR `[L, D, H, N]` in units of the scale; NaN for none."""
        raw = torch.stack([forecast.value_at_risk(level) for level in self.levels])
        return forecast.pit(returns), (-returns.double() - raw) / scale_of(forecast)

    def _aligned(self, forecast: Forecast) -> dict[str, Tensor]:
        """The state of the forecast's assets, the initial one of those that are new."""
        if self._horizons and forecast.horizons != self._horizons:
            raise ValueError(f"the forecast's horizons are {forecast.horizons}, and the state's {self._horizons}.")
        device = forecast.mask.device
        fresh = self._initial(len(forecast.horizons), len(forecast.assets))
        index, there = self._match(forecast.assets)
        result = {}
        for name, value in fresh.items():
            own = self._state.get(name)
            value = value if own is None else torch.where(there, own.cpu()[..., index], value)
            result[name] = value.to(device)
        return result

    def _adopt(self, forecast: Forecast) -> None:
        """Makes what is awaited that of the forecast's assets."""
        if self._assets and forecast.assets != self._assets:
            index, there = self._match(forecast.assets)
            for item in self._pending:
                item.mass, item.shift = item.mass.cpu()[..., index], item.shift.cpu()[..., index]
                item.awaited = item.awaited.cpu()[..., index] & there
        device = forecast.mask.device
        for item in self._pending:
            item.mass, item.shift, item.awaited = (x.to(device) for x in (item.mass, item.shift, item.awaited))
        self._assets, self._horizons = forecast.assets, forecast.horizons

    def _match(self, assets: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Where each asset stands in the state, 0 if it does not, and whether it does."""
        place = {asset: n for n, asset in enumerate(self._assets)}
        index = torch.tensor([place.get(asset, 0) for asset in assets])
        return index, torch.tensor([asset in place for asset in assets])


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


def known_at(state: UInt8[Tensor, "D N"], horizons: Sequence[int]) -> Int64[Tensor, "D H N"]:
    """The position among the rows of each asset's h-th later session, the number of rows where there is none."""
    sessions = _sessions(state).T.contiguous()  # [N, D]
    wanted = torch.stack([sessions + h for h in horizons])  # [H, N, D]
    edges = sessions.expand(wanted.shape).contiguous()
    return torch.searchsorted(edges, wanted.contiguous()).permute(2, 0, 1)


def _sessions(state: UInt8[Tensor, "D N"]) -> Int64[Tensor, "D N"]:
    """How many sessions each asset has had by each row."""
    return (state == State.OBSERVED).cumsum(0)


def _days(dates: pd.DatetimeIndex) -> np.ndarray:
    return dates.to_numpy().astype("M8[D]").astype(np.int64)


def _dates(days: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(days.astype("M8[D]"))
