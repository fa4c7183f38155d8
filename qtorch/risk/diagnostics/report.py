"""All diagnostics of a forecast in one tidy frame: as a whole, by asset, by regime, by year, by length of history."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from qtorch.distributions import decompose, take
from qtorch.distributions.checks import require
from qtorch.risk.backtests.coverage import exceedances
from qtorch.risk.diagnostics.calibration_error import calibration_error
from qtorch.risk.diagnostics.clustered import clustered_mean
from qtorch.risk.diagnostics.coverage import coverage_by_group
from qtorch.risk.diagnostics.groups import volatility_regimes
from qtorch.risk.diagnostics.selective import rank_correlation, selective_risk
from qtorch.risk.diagnostics.sharpness import interval_width
from qtorch.risk.scores.crps import crps
from qtorch.risk.scores.density import log_score

if TYPE_CHECKING:
    from qtorch.forecast import Forecast

COLUMNS = ["by", "group", "horizon", "measure", "level", "value", "expected", "low", "high", "observations", "dates"]
REGIMES = ("calm", "usual", "rough")
_NORMAL_95 = 1.959964


def report(
    forecast: "Forecast",
    returns: Float[Tensor, "D H N"],
    *,
    horizon: int | None = None,
    levels: Sequence[float] = (0.95, 0.99),
    history: Int64[Tensor, "D N"] | None = None,
    history_edges: Sequence[int] = (250, 500, 1000),
    labels: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """How well a forecast's probabilities, tails and doubts of itself held, group by group.

    Groups: all; each asset; regimes, terciles of each asset's forecast volatility among its own up to that date
    (`volatility_regimes`); years; spans of history; and labels of one's own. Measures, with intervals at 95 % whose
    errors are from sums by date (`clustered_mean`):

    * calibration_error: of `calibration_error`; expected is that of a right forecast, high its bound.
    * exceedance_rate: at each level; expected is 1 - level.
    * log_score, crps: means, in the returns' unit.
    * width_90, volatility: the mean width of the central 90 % interval, and the mean volatility.
    * epistemic_share, where the forecast has draws of its model: the mean share of the variance that is doubt of the
      mean; doubt_correlation: the rank correlation of that share with the surprise, the log score in units of the
      volatility, with a bootstrapped interval; doubt_gain: how far leaving out what is in doubt goes from leaving out
      at random (0) to leaving out the worst (1), see `SelectiveRisk.gain`.

    Args:
        forecast: of past dates.
        returns: what came, NaN where nothing.
        horizon: in sessions; the forecast's first by default.
        levels: of the values at risk.
        history: sessions since the listing at each date, such as ``history_length(panel.mask)[rows]``; without it there
            are no such groups.
        history_edges: where the spans of history begin, ascending.
        labels: by name, a label for each date, `[D]`, or date and asset, `[D, N]`, such as a sector or a crisis; None
            and NaN are in no group.

    Returns:
        One row for each group and measure, with level and expected NaN where there is none: the columns by, group,
        horizon, measure, level, value, expected, low, high, observations, dates.

    Raises:
        ValueError: there is no forecast over the horizon, shapes differ, or a level is out of range.

    References:
        Gneiting, Balabdaoui and Raftery (2007), Probabilistic forecasts, calibration and sharpness, JRSS B 69; Geifman
        and El-Yaniv (2017), Selective classification for deep neural networks, NeurIPS.

    Example:
        >>> from qtorch import Forecast
        >>> from qtorch.distributions import StudentT
        >>> law = StudentT(torch.tensor(5.0), torch.zeros(400, 1, 3), torch.tensor(0.01))
        >>> there = torch.ones(400, 3, dtype=torch.bool)
        >>> dates = pd.bdate_range("2022-01-03", periods=400)
        >>> forecast = Forecast(law, there, there.byte(), dates, ("A", "B", "C"), (1,))
        >>> _ = torch.manual_seed(0)
        >>> frame = report(forecast, law.sample())
        >>> rates = frame[(frame["measure"] == "exceedance_rate") & (frame["level"] == 0.95)]
        >>> rates[["by", "group", "value"]].head(4).round(3).values.tolist()
        [['all', 'all', 0.049], ['asset', 'A', 0.055], ['asset', 'B', 0.042], ['asset', 'C', 0.05]]
    """
    over = forecast.horizons[0] if horizon is None else horizon
    require(over in forecast.horizons, "horizon", over, f"the forecast's are {forecast.horizons}")
    expected = (len(forecast.dates), len(forecast.horizons), len(forecast.assets))
    require(tuple(returns.shape) == expected, "returns", tuple(returns.shape), f"give {expected}, as of Forecast.pit")
    outcomes = _Outcomes.of(forecast, returns, over, levels)
    volatility = torch.where(outcomes.there, forecast.volatility[:, forecast.horizons.index(over)], torch.nan)
    rows = []
    for by, codes, names in _groups(forecast, volatility, history, history_edges, labels or {}):
        for code in codes[outcomes.there & (codes >= 0)].unique().tolist():
            for row in outcomes.measured(codes == code):
                rows.append({"by": by, "group": str(names[code]), "horizon": over} | row)
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True, eq=False)
class _Outcomes:
    """What is averaged, for each date and asset `[D, N]`.

    Attributes:
        there: where a return was forecast and came.
        pit: its probability integral transform.
        beyond: by level, whether the loss was beyond the value at risk.
        means: by measure.
        doubt: share of the variance that is epistemic; None where the model is sure.
        surprise: the log score in units of the volatility.
        overlap: sessions that a return spans.
    """

    there: Bool[Tensor, "D N"]
    pit: Float[Tensor, "D N"]
    beyond: dict[float, Bool[Tensor, "D N"]]
    means: dict[str, Float[Tensor, "D N"]]
    doubt: Float[Tensor, "D N"] | None
    surprise: Float[Tensor, "D N"]
    overlap: int

    @classmethod
    def of(cls, forecast: "Forecast", returns: Tensor, horizon: int, levels: Sequence[float]) -> "_Outcomes":
        h = forecast.horizons.index(horizon)
        y = returns[:, h].double()
        there = forecast.mask & y.isfinite()
        law = take(forecast.marginals, (slice(None), h))
        score, volatility = log_score(law, y, there).double(), forecast.volatility[:, h]
        means = {
            "log_score": score,
            "crps": crps(law, y, there).double(),
            "width_90": torch.where(there, interval_width(law).double(), torch.nan),
            "volatility": torch.where(there, volatility, torch.nan),
        }
        doubt = None
        if forecast.draws > 1:
            parts = decompose(law)
            doubt = torch.where(there, (parts.epistemic / (parts.aleatoric + parts.epistemic)).double(), torch.nan)
            means["epistemic_share"] = doubt
        beyond = {level: exceedances(y, forecast.value_at_risk(level)[:, h]) for level in levels}
        surprise = score - volatility.log()
        return cls(there, forecast.pit(returns)[:, h], beyond, means, doubt, surprise, horizon)

    def measured(self, group: Bool[Tensor, "D N"]) -> Iterator[dict[str, Any]]:
        """The measures of a group, some of whose outcomes are there."""
        columns = (self.there & group).any(0)
        own = (self.there & group)[:, columns]
        single = own.shape[1] == 1
        n, dates = int(own.sum()), int(own.any(1).sum())

        def row(measure: str, value: float, low: float, high: float, **rest: float) -> dict[str, Any]:
            start = {"measure": measure, "level": np.nan, "expected": np.nan, "observations": n, "dates": dates}
            return start | {"value": value, "low": low, "high": high} | rest

        pit, mask = ((x[:, 0] if single else x) for x in (self.pit[:, columns], own))
        error = calibration_error(pit, mask=mask, panel=not single, overlap=self.overlap)
        bounds = {"high": error.bound.item(), "expected": error.expected.item()}
        yield row("calibration_error", error.error.item(), low=0.0, **bounds)
        for level, beyond in self.beyond.items():
            together = torch.zeros_like(own, dtype=torch.long)
            (rate,) = coverage_by_group(beyond[:, columns], level, together, own, overlap=self.overlap).to_dict(
                "records"
            )
            yield row(
                "exceedance_rate", rate["rate"], rate["low"], rate["high"], level=level, expected=rate["expected"]
            )
        for measure, values in self.means.items():
            x = values[:, columns]
            if not x[own].isfinite().all():  # a score of what was forecast to be impossible
                yield row(measure, x[own].mean().item(), np.nan, np.nan)
                continue
            mean = clustered_mean(x.unsqueeze(-1), own, self.overlap)
            half = _NORMAL_95 * mean.standard_error.item()
            yield row(measure, mean.mean.item(), mean.mean.item() - half, mean.mean.item() + half)
        if self.doubt is not None:
            doubt, surprise = self.doubt[:, columns], self.surprise[:, columns]
            found = rank_correlation(doubt, surprise, own, block=max(10, self.overlap))
            yield row("doubt_correlation", found.estimate, found.lower, found.upper)
            yield row("doubt_gain", selective_risk(doubt, surprise, own).gain, np.nan, np.nan)


def _groups(
    forecast: "Forecast",
    volatility: Float[Tensor, "D N"],
    history: Int64[Tensor, "D N"] | None,
    edges: Sequence[int],
    labels: Mapping[str, Any],
) -> Iterator[tuple[str, Int64[Tensor, "D N"], Sequence[Any]]]:
    """By what outcomes are sorted, the number of each one's group, and the groups' names."""
    D, N = forecast.mask.shape
    where = forecast.mask.device
    yield "all", torch.zeros(D, N, dtype=torch.long, device=where), ["all"]
    yield "asset", torch.arange(N, device=where).expand(D, N), forecast.assets
    yield "volatility", volatility_regimes(volatility, len(REGIMES)), REGIMES
    if history is not None:
        bounds = tuple(edges)
        ascend = bool(bounds) and all(a < b for a, b in zip(bounds, bounds[1:], strict=False))
        require(ascend, "history_edges", bounds, "give the sessions at which spans begin, ascending")
        names = [f"below {bounds[0]} sessions"]
        names += [f"{a} to {b - 1} sessions" for a, b in zip(bounds, bounds[1:], strict=False)]
        spans = torch.bucketize(history.to(where), torch.tensor(bounds, device=where), right=True)
        yield "history", spans, [*names, f"{bounds[-1]} sessions and more"]
    for name, given in {"year": forecast.dates.year, **labels}.items():
        each = np.asarray(given, dtype=object)
        require(each.shape in ((D,), (D, N)), f"labels[{name!r}]", each.shape, f"give [{D}] or [{D}, {N}]")
        full = np.broadcast_to(each[:, None] if each.ndim == 1 else each, (D, N))
        codes, unique = pd.factorize(full.ravel(), sort=True)
        yield name, torch.from_numpy(codes.reshape(D, N).astype(np.int64)).to(where), list(unique)
