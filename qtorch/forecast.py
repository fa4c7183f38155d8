"""Forecasts: a distribution of returns with the dates, assets and horizons it is about."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor
from torch.distributions import Distribution

from qtorch.data.states import State
from qtorch.distributions import JointDistribution, take
from qtorch.risk.measures import expected_shortfall, value_at_risk


@dataclass(frozen=True, eq=False)
class Forecast:
    """What a forecaster says at `D` as-of dates about `N` assets over `H` horizons.

    Measures are float64 tensors `[D, H, N]` in decimals, NaN where there is no forecast.

    Attributes:
        distribution: of simple returns over the horizon, batch shape `[D, H, N]`, or joint, batch shape `[D, H]` and
            event shape `[N]`; where `mask` is False it is a
            placeholder.
        mask: where there is a forecast.
        state: the panel's `State` of each asset at each date.
        dates: as-of dates; a forecast knows its row of the panel and nothing later.
        assets: names.
        horizons: in the asset's own sessions from its last close.
    """

    distribution: Distribution
    mask: Bool[Tensor, "D N"]
    state: UInt8[Tensor, "D N"]
    dates: pd.DatetimeIndex
    assets: tuple[str, ...]
    horizons: tuple[int, ...]

    @property
    def marginals(self) -> Distribution:
        """The law of each asset, batch shape `[D, H, N]`."""
        law = self.distribution
        return law.marginals if isinstance(law, JointDistribution) else law

    def value_at_risk(self, level: float) -> Float64[Tensor, "D H N"]:
        """Positive loss not exceeded with probability `level`."""
        return self._masked(value_at_risk(self.marginals, level))

    def expected_shortfall(self, level: float) -> Float64[Tensor, "D H N"]:
        """Positive mean loss beyond the value at risk at confidence `level`."""
        return self._masked(expected_shortfall(self.marginals, level))

    @cached_property
    def volatility(self) -> Float64[Tensor, "D H N"]:
        """Standard deviation of the return over the horizon (not annualised)."""
        return self._masked(self.marginals.variance.sqrt())

    def select(self, dates: slice) -> "Forecast":
        """The forecasts of some of the dates, by position."""
        return Forecast(
            take(self.distribution, dates),
            self.mask[dates],
            self.state[dates],
            self.dates[dates],
            self.assets,
            self.horizons,
        )

    def pit(self, returns: Float[Tensor, "D H N"]) -> Float64[Tensor, "D H N"]:
        """Probability integral transforms of realised returns, uniform if the forecasts are right; NaN where none."""
        there = returns.isfinite()
        value = self.marginals.cdf(torch.where(there, returns, 0.0).double())
        return torch.where(there, self._masked(value), torch.nan)

    def to_frame(self, levels: Iterable[float] = (0.95, 0.975, 0.99)) -> pd.DataFrame:
        """A tidy frame, one row per date, asset, horizon and level, without the assets that have no forecast.

        Returns:
            Columns date, asset, horizon, level, value_at_risk, expected_shortfall, volatility, degrees_of_freedom
            (NaN where the distribution has none), state.
        """
        D, H, N = len(self.dates), len(self.horizons), len(self.assets)
        shape = (D, H, N)
        df = getattr(self.marginals, "df", None)
        df = torch.full(shape, torch.nan) if df is None else df.expand(shape)
        states = np.array([state.name for state in sorted(State)], dtype=object)
        common = {
            "date": np.broadcast_to(self.dates.to_numpy()[:, None, None], shape),
            "asset": np.broadcast_to(np.array(self.assets, dtype=object), shape),
            "horizon": np.broadcast_to(np.array(self.horizons)[:, None], shape),
            "volatility": _numpy(self.volatility),
            "degrees_of_freedom": _numpy(df.double()),
            "state": np.broadcast_to(states[_numpy(self.state)][:, None, :], shape),
        }
        keep = np.broadcast_to(_numpy(self.mask)[:, None, :], shape).ravel()
        frames = [
            pd.DataFrame(
                {name: values.ravel()[keep] for name, values in common.items()}
                | {
                    "level": level,
                    "value_at_risk": _numpy(self.value_at_risk(level)).ravel()[keep],
                    "expected_shortfall": _numpy(self.expected_shortfall(level)).ravel()[keep],
                }
            )
            for level in levels
        ]
        order = ["date", "asset", "horizon", "level", "value_at_risk", "expected_shortfall"]
        order += ["volatility", "degrees_of_freedom", "state"]
        frame = pd.concat(frames, ignore_index=True)[order].astype({"asset": "str", "state": "str"})
        return frame.sort_values(order[:4], kind="stable", ignore_index=True)

    def __repr__(self) -> str:
        horizons = ", ".join(map(str, self.horizons))
        return (
            f"Forecast({len(self.dates)} dates {self.dates[0]:%Y-%m-%d}..{self.dates[-1]:%Y-%m-%d}, "
            f"{len(self.assets)} assets, horizons {horizons}; {int(self.mask.sum())} of {self.mask.numel()} forecast)"
        )

    def _masked(self, value: Tensor) -> Float64[Tensor, "D H N"]:
        return torch.where(self.mask[:, None, :], value.double(), torch.nan)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
