"""Forecasts: a distribution of returns with the dates, assets and horizons it is about."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor
from torch.distributions import Distribution

from qtorch.data.errors import counted, span
from qtorch.data.rows import Date, label
from qtorch.data.states import State
from qtorch.distributions import (
    Decomposition,
    Empirical,
    GaussianCopula,
    JointDistribution,
    StudentTCopula,
    decompose,
    over_draws,
    take,
)
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.risk.joint_scenarios import portfolio_scenarios, scenarios_of
from qtorch.risk.measures import expected_shortfall, value_at_risk

_DRAWS = 2048  # of a law without marginals


@dataclass(frozen=True, eq=False)
class Forecast:
    """What a forecaster says at `D` as-of dates about `N` assets over `H` horizons.

    Measures are float64 tensors `[D, H, N]` in decimals, NaN where there is no forecast.

    Attributes:
        distribution: of simple returns over the horizon, batch shape `[D, H, N]`, or joint, batch shape `[D, H]` and
            event shape `[N]`; where `mask` is False it is a placeholder, or leaves the asset out.
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

    @cached_property
    def marginals(self) -> Distribution:
        """The law of each asset, batch shape `[D, H, N]`.

        Those of a joint law that has none in closed form, such as a `MaskedFlow`, are of 2,048 draws, an `Empirical`.
        """
        law: Any = self.distribution
        if not law.event_shape:
            return law
        if law.marginals is not None:
            return law.marginals
        D, H = len(self.dates), len(self.horizons)
        draws = torch.stack([torch.stack([self._scenarios(d, h, _DRAWS, 0).T for h in range(H)]) for d in range(D)])
        return Empirical(torch.where(self.mask[:, None, :, None], draws, 0.0).float())

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

    @cached_property
    def draws(self) -> int:
        """How many draws of its model the forecast is a mixture of: members of an ensemble, draws of a posterior.

        1 where it is of a single set of weights, or its law was made of the mixture as one whole (recalibrated, or by
        scenarios), and it does not know how sure the model is.
        """
        weights, _ = over_draws(self.marginals, lambda law: torch.zeros(law.batch_shape))
        return weights.shape[-1]

    def decompose(self) -> Decomposition:
        """Variance over the horizon that is the market's (aleatoric) and the model's doubt of its mean (epistemic).

        Returns:
            Float64 tensors `[D, H, N]`, which sum to the variance; NaN where there is no forecast.

        Raises:
            ValueError: the forecast has no draws of its model.
        """
        self._needs_draws("decompose")
        return Decomposition(*map(self._masked, decompose(self.marginals)))

    def epistemic_interval(
        self, level: float, mass: float = 0.9
    ) -> tuple[Float64[Tensor, "D H N"], Float64[Tensor, "D H N"]]:
        """Between what bounds the value at risk itself is, as far as the model's draws tell.

        Each draw of the model has a value at risk of its own; the bounds are quantiles of these. The value at risk of
        the forecast, which is that of the mixture of all draws, may lie outside where draws disagree much, since their
        widest laws make its tail.

        Of few draws the bounds are nearly the least and the largest: at mass .9 they are these exactly of fewer than 20
        draws of equal weights. One more member, trained alike, would be between those of K with probability
        (K - 1) / (K + 1) and not `mass`: 67 % of five, 50 % of three.

        Args:
            level: of the value at risk.
            mass: between the bounds; as much is left out above as below.

        Raises:
            ValueError: the forecast has no draws of its model, or the mass is not inside (0, 1).
        """
        require(0 < mass < 1, "mass", mass, "give a share inside (0, 1), such as 0.9")
        self._needs_draws("epistemic_interval")
        weights, values = over_draws(self.marginals, lambda law: self._at_risk(law, level))
        law = Empirical(values.double(), weights.double())
        low, high = (law.icdf(torch.tensor(p, dtype=torch.float64)) for p in ((1 - mass) / 2, (1 + mass) / 2))
        return self._masked(low), self._masked(high)

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

    def over(self, horizon: int) -> "Forecast":
        """The marginal forecasts over one of the horizons, in sessions, alone."""
        h = self.horizons.index(horizon)
        law = take(self.marginals, (slice(None), slice(h, h + 1)))
        return Forecast(law, self.mask, self.state, self.dates, self.assets, (horizon,))

    def pit(self, returns: Float[Tensor, "D H N"]) -> Float64[Tensor, "D H N"]:
        """Probability integral transforms of realised returns, uniform if the forecasts are right; NaN where none."""
        there = returns.isfinite()
        value = self.marginals.cdf(torch.where(there, returns, 0.0).double())
        return torch.where(there, self._masked(value), torch.nan)

    def with_copula(self, copula: GaussianCopula | StudentTCopula) -> "Forecast":
        """The same marginals made joint, or their dependence replaced.

        A copula that is fitted to transforms knows their dates: forecast dates after them alone.

        Args:
            copula: of the `N` assets, such as `qtorch.risk.fit_copula` of past transforms (`pit`); one for all, or with
                a batch shape that broadcasts to `[D, H]`.

        Raises:
            ValueError: the copula is of other dates, horizons or assets, or not one of factors.

        Example:
            >>> from qtorch.distributions import StudentT
            >>> law = StudentT(torch.tensor(4.0), torch.zeros(1, 1, 2), torch.tensor([0.01, 0.02]))
            >>> there = torch.ones(1, 2, dtype=torch.bool)
            >>> dates = pd.DatetimeIndex(["2024-05-03"])
            >>> forecast = Forecast(law, there, there.byte(), dates, ("AAPL", "JPM"), (1,))
            >>> joint = forecast.with_copula(StudentTCopula(5.0, torch.full((2, 1), 0.7)))
            >>> profit = joint.portfolio(torch.tensor([0.5, 0.5]))
            >>> bool(value_at_risk(profit, 0.99) < forecast.value_at_risk(0.99).mean())
            True
        """
        if not isinstance(copula, GaussianCopula | StudentTCopula):
            raise ArgumentError(
                f"a forecast takes a GaussianCopula or a StudentTCopula, not a {type(copula).__name__}."
            )
        D, H = len(self.dates), len(self.horizons)
        batch = tuple(copula.batch_shape)
        if len(batch) > 2 or any(own not in (1, there) for own, there in zip(reversed(batch), (H, D), strict=False)):
            raise ArgumentError(
                f"the copula's batch shape {batch} does not broadcast to [{D}, {H}], the forecast's dates and horizons."
            )
        return replace(self, distribution=JointDistribution(self.marginals, copula))

    def scenarios(self, date: Date, horizon: int, count: int = 1024, seed: int = 0) -> Float64[Tensor, "S N"]:
        """Joint scenarios of simple returns.

        Quasi-random ones, as of `qtorch.risk.quasi_random_scenarios`, where the copula is of factors; else drawn.

        Args:
            date: one of `dates`.
            horizon: one of `horizons`, in sessions.
            count: S, a power of 2 for quasi-random ones.
            seed: the same gives the same scenarios.

        Returns:
            NaN for assets without a forecast.

        Raises:
            DataError: the date can't be read, is absent, or has a time zone.
            ValueError: the law is not joint, or the date, horizon or count is not right.
        """
        self._joint("scenarios")
        day = label(date, "date")
        if day not in self.dates:
            raise ArgumentError(f"there is no forecast of {day:%Y-%m-%d}; the dates are {span(self.dates)}.")
        if horizon not in self.horizons:
            raise ArgumentError(f"there is no forecast over {horizon} sessions; the horizons are {self.horizons}.")
        d, h = int(self.dates.get_indexer(pd.DatetimeIndex([day]))[0]), self.horizons.index(horizon)
        return torch.where(self.mask[d], self._scenarios(d, h, count, seed), torch.nan)

    def portfolio(
        self, weights: Float[Tensor, "N"] | Float[Tensor, "D N"], count: int = 1024, seed: int = 0
    ) -> Empirical:
        """The law of a portfolio's return at each date and horizon, from scenarios of the joint law.

        Args:
            weights: of the assets, or exposures in any unit, which the law is then in; of all dates or of each.
            count: scenarios, as of `scenarios`.
            seed: the same gives the same scenarios.

        Returns:
            Batch shape `[D, H]`, for `qtorch.risk.value_at_risk` and `expected_shortfall`.

        Raises:
            ValueError: the law is not joint, a weight is not finite, or an asset that is held has no forecast.
        """
        joint = self._joint("a portfolio's law")
        D, N = self.mask.shape
        if weights.shape not in ((N,), (D, N)) or not weights.isfinite().all():
            raise ArgumentError(
                f"weights are [{N}] or [{D}, {N}] finite numbers, not {tuple(weights.shape)}: {weights}."
            )
        held = weights.detach().to(self.mask.device).double().expand(D, N)
        without = (held != 0) & ~self.mask
        if without.any():
            d, n = without.nonzero()[0].tolist()
            raise ArgumentError(
                f"{int(without.sum())} of the held positions have no forecast, the first {self.assets[n]} on "
                f"{self.dates[d]:%Y-%m-%d}. Give weights of 0 there: weights may be [D, N]."
            )
        laws = [take(joint, (slice(None), h)) for h in range(len(self.horizons))]
        return Empirical(torch.stack([portfolio_scenarios(law, held, count, seed=seed) for law in laws], dim=1))

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
            f"{type(self).__name__}({counted(len(self.dates), 'date')} {span(self.dates)}, "
            f"{counted(len(self.assets), 'asset')}, horizons {horizons}; {int(self.mask.sum())} of "
            f"{self.mask.numel()} forecast)"
        )

    def _repr_html_(self) -> str:
        from qtorch.forecast_card import forecast_card

        return forecast_card(self)

    def _scenarios(self, d: int, h: int, count: int, seed: int) -> Float64[Tensor, "S N"]:
        """Of the joint law of a date and horizon, by their positions."""
        return scenarios_of(take(self.distribution, (d, h)), count, randomisations=1, seed=seed)[0]

    def _joint(self, wanted: str) -> Any:
        if not self.distribution.event_shape:
            raise ArgumentError(
                f"{wanted} needs a joint law, and this forecast has marginals alone. Give it a dependence, "
                "forecast.with_copula(qtorch.risk.fit_copula(...)), or train a JointHead."
            )
        return self.distribution

    def _needs_draws(self, wanted: str) -> None:
        if self.draws == 1:
            raise ArgumentError(
                f"{wanted} needs a forecast that knows how sure its model is, and its law, a "
                f"{type(self.marginals).__name__}, has no draws of the model: it is of a single set of weights, or "
                "made of a mixture as one whole, such as by a recalibration or by scenarios. Forecast by a "
                "qtorch.training.Ensemble or a posterior of qtorch.heads, and ask before the forecast is recalibrated."
            )

    def _at_risk(self, law: Distribution, level: float) -> Tensor:
        """The value at risk of a draw of the marginals, batch shape `[D, H, N, ...]`."""
        return value_at_risk(law, level)

    def _masked(self, value: Tensor) -> Float64[Tensor, "D H N"]:
        return torch.where(self.mask[:, None, :], value.double(), torch.nan)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
