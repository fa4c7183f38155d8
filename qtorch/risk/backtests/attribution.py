"""Basel's P&L attribution test of a desk's risk model."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from qtorch.risk.backtests.laws import kolmogorov_limit_sf
from qtorch.risk.backtests.result import PanelResult, flat, series_index, zone_counts, zone_names
from qtorch.risk.backtests.series import compress, usable

ZONES = ("green", "amber", "red")
SPEARMAN_GREEN, SPEARMAN_RED = 0.80, 0.70
DISTANCE_GREEN, DISTANCE_RED = 0.09, 0.12


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(PanelResult):
    """Zones of every desk of a panel.

    Attributes:
        name: of the test.
        spearman: rank correlation; NaN where it is undefined.
        kolmogorov_smirnov: largest distance of the two distribution functions; NaN without an observation.
        p_value: of that distance for two independent samples of one law, in the limit.
        observations: how many rows were used.
        zone: 0 green, 1 amber, 2 red; -1 where a statistic is NaN.
    """

    name: str
    spearman: Float64[Tensor, "*series"]
    kolmogorov_smirnov: Float64[Tensor, "*series"]
    p_value: Float64[Tensor, "*series"]
    observations: Int64[Tensor, "*series"]
    zone: Int64[Tensor, "*series"]

    def to_frame(self, names: Sequence[Hashable] | None = None) -> pd.DataFrame:
        """Both statistics, observations and the zone of each desk.

        Args:
            names: of the desks; their positions by default.
        """
        columns = {
            "spearman": flat(self.spearman),
            "kolmogorov_smirnov": flat(self.kolmogorov_smirnov),
            "p_value": flat(self.p_value),
            "observations": flat(self.observations),
            "zone": zone_names(self.zone, ZONES, "not testable"),
        }
        return pd.DataFrame(columns, index=series_index(self.zone.shape, names))

    def _lines(self, frame: pd.DataFrame) -> list[str]:
        return [self.name, zone_counts(frame, ZONES, "desks")]

    def _worst(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.nsmallest(5, "spearman")


def pl_attribution(
    hypothetical: Float[Tensor, "T *series"],
    risk_theoretical: Float[Tensor, "T *series"],
    mask: Bool[Tensor, "T *series"] | None = None,
) -> Attribution:
    """How near the risk model's P&L comes to the desk's: rank correlation and distance of distributions.

    Green where Spearman's correlation is above 0.80 and the Kolmogorov-Smirnov distance below 0.09, red where the
    correlation is below 0.70 or the distance above 0.12, amber else. Ties have their mean rank. Basel's window is
    the last 250 sessions; the caller chooses it.

    Args:
        hypothetical: P&L of yesterday's positions at today's prices, in any unit.
        risk_theoretical: P&L of the same positions by the risk model, in that unit.
        mask: which days count, all by default; NaN never do.

    Raises:
        ValueError: shapes differ.

    References:
        Basel Committee on Banking Supervision (2019), MAR32.16 to MAR32.44.
    """
    there = usable(mask, hypothetical=hypothetical, risk_theoretical=risk_theoretical)
    there, a, b = compress(there, hypothetical.double(), risk_theoretical.double())
    n = there.sum(0)
    ranks = [torch.where(there, _ranks(x, there) - (n.double() + 1) / 2, 0.0) for x in (a, b)]
    spread = ((ranks[0] ** 2).sum(0) * (ranks[1] ** 2).sum(0)).sqrt()
    spearman = torch.where(spread > 0, (ranks[0] * ranks[1]).sum(0) / spread.clamp(min=1e-300), torch.nan)
    distance = torch.where(n > 0, _distance(a, b, there), torch.nan)
    green = (spearman > SPEARMAN_GREEN) & (distance < DISTANCE_GREEN)
    red = (spearman < SPEARMAN_RED) | (distance > DISTANCE_RED)
    zone = torch.where(green, 0, torch.where(red, 2, 1))
    zone = torch.where(spearman.isnan() | distance.isnan(), -1, zone)
    p_value = kolmogorov_limit_sf(distance * (n.double() / 2).sqrt())
    return Attribution("P&L attribution", spearman, distance, p_value, n, zone)


def _runs(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """First and last position of the run of equal values that each position of sorted values is in."""
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    place = torch.arange(len(ordered), device=ordered.device).view(-1, *[1] * (ordered.ndim - 1)).expand(ordered.shape)
    first = torch.where(new, place, 0).cummax(0).values
    end = torch.ones_like(new)
    end[:-1] = new[1:]
    last = torch.where(end, place, len(ordered)).flip(0).cummin(0).values.flip(0)
    return first, last


def _ranks(x: Tensor, there: Tensor) -> Float64[Tensor, "R *series"]:
    """Ranks from 1, the mean of them for ties."""
    ordered, order = torch.where(there, x, torch.inf).sort(0)
    first, last = _runs(ordered)
    return torch.empty_like(x).scatter(0, order, (first + last).double() / 2 + 1)


def _distance(a: Tensor, b: Tensor, there: Tensor) -> Float64[Tensor, "*series"]:
    """Largest |F_a - F_b| of two samples of the same size."""
    both = torch.where(torch.cat([there, there]), torch.cat([a, b]), torch.inf)
    ordered, order = both.sort(0)
    step = torch.where(order < len(a), 1.0, -1.0).double()
    step = torch.where(ordered.isinf(), 0.0, step)
    _, last = _runs(ordered)
    height = step.cumsum(0).gather(0, last)  # where ties have all been counted
    return height.abs().amax(0) / there.sum(0).clamp(min=1)
