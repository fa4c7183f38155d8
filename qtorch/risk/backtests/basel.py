"""Basel's traffic light of the value at risk, and one in its manner of the expected shortfall."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from qtorch.risk.backtests.cumulative import cumulative_violations, violation_law
from qtorch.risk.backtests.laws import binomial_cdf
from qtorch.risk.backtests.result import PanelResult, flat, series_index, zone_counts, zone_names
from qtorch.risk.backtests.series import check_level, compress, usable

ZONES = ("green", "yellow", "red")
YELLOW, RED = 0.95, 0.9999  # probability of at most as many under a true model, from which the zones begin
MULTIPLIERS = (1.50, 1.50, 1.50, 1.50, 1.50, 1.70, 1.76, 1.83, 1.88, 1.92, 2.00)


@dataclass(frozen=True, eq=False, repr=False)
class TrafficLight(PanelResult):
    """Zones of every series of a panel.

    Attributes:
        name: of the test.
        zone: 0 green, 1 yellow, 2 red; -1 where there is no observation.
        count: exceedances, or cumulative violations of the expected shortfall.
        observations: how many rows were used.
        probability: of at most that count under a true model; NaN where there is no observation.
        multiplier: of Basel's capital charge, NaN where Basel has none.
    """

    name: str
    zone: Int64[Tensor, "*series"]
    count: Float64[Tensor, "*series"]
    observations: Int64[Tensor, "*series"]
    probability: Float64[Tensor, "*series"]
    multiplier: Float64[Tensor, "*series"]

    def to_frame(self, names: Sequence[Hashable] | None = None) -> pd.DataFrame:
        """Zone, count, observations, probability and multiplier of each series.

        Args:
            names: of the series; their positions by default.
        """
        columns = {
            "zone": zone_names(self.zone, ZONES, "no observation"),
            "count": flat(self.count),
            "observations": flat(self.observations),
            "probability": flat(self.probability),
            "multiplier": flat(self.multiplier),
        }
        return pd.DataFrame(columns, index=series_index(self.zone.shape, names))

    def _lines(self, frame: pd.DataFrame) -> list[str]:
        return [self.name, zone_counts(frame, ZONES, "series")]

    def _worst(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.nlargest(5, "probability")


def traffic_light(
    exceeded: Bool[Tensor, "T *series"],
    level: float = 0.99,
    mask: Bool[Tensor, "T *series"] | None = None,
) -> TrafficLight:
    """Basel's zones of the number of exceedances.

    Yellow begins where the binomial probability of at most that many exceedances reaches 95 %, red where it reaches
    99.99 %: at 5 and 10 exceedances of 250 at the 99 % level. The multiplier is Basel's for 250 observations at 99 %;
    for other numbers it is that of the count of 250 which is as improbable, the least whose probability of at most as
    many is no lower.

    The caller chooses the window: Basel's is the last 250 sessions. Windows that overlap have no place in it, since
    Basel counts one-day exceedances.

    Args:
        exceeded: whether the loss was beyond the value at risk.
        level: confidence, such as 0.99.
        mask: which days count, all by default.

    Raises:
        ValueError: shapes differ, or the level is not inside (1/2, 1).

    References:
        Basel Committee on Banking Supervision (2019), MAR32.9 and MAR99.12 to MAR99.19, with the multipliers of table 2
        of MAR99.

    Example:
        >>> import torch
        >>> print(traffic_light(torch.arange(250)[:, None] < torch.tensor([4, 7, 12])))
        Basel traffic light of the value at risk
        3 series: 1 green, 1 yellow, 1 red
                  zone   count  observations  probability  multiplier
        series
        0        green  4.0000           250       0.8922      1.5000
        1       yellow  7.0000           250       0.9960      1.8300
        2          red 12.0000           250       1.0000      2.0000
    """
    p = check_level(level)
    there = usable(mask, exceeded=exceeded)
    n, x = there.sum(0), (exceeded & there).sum(0).double()
    probability = torch.where(n > 0, binomial_cdf(x, n.double(), p), torch.nan)
    count = torch.arange(len(MULTIPLIERS), dtype=torch.float64, device=n.device)
    ladder = binomial_cdf(count, torch.full_like(count, 250), 0.01)
    step = (ladder[:-1] < probability.unsqueeze(-1) - 1e-12).sum(-1)
    multiplier = torch.tensor(MULTIPLIERS, dtype=torch.float64, device=n.device)[step]
    return TrafficLight(
        "Basel traffic light of the value at risk",
        _zone(probability),
        x,
        n,
        probability,
        torch.where(n > 0, multiplier, torch.nan),
    )


def shortfall_traffic_light(
    pit: Float[Tensor, "T *series"], level: float = 0.975, mask: Bool[Tensor, "T *series"] | None = None
) -> TrafficLight:
    """Zones of the expected shortfall, from the cumulative violations of the tail.

    Each exceedance counts 1 - u / p with u its probability integral transform and p = 1 - level: 0 at the VaR, 1 far
    beyond it, 1/2 on average. Zones begin where the probability of at most that sum reaches 95 % and 99.99 %, as
    Basel's; the null law, n independent draws of 0 or a uniform, is convolved on a grid: its error is below 1e-4 at a
    sum of 1, where the law has a kink, and 2e-6 elsewhere.

    Args:
        pit: probability that the forecast gave to returns at most as high as the one that came.
        level: confidence, such as 0.975.
        mask: which days count, all by default; NaN never do.

    Raises:
        ValueError: shapes differ, the level is not inside (1/2, 1), or transforms leave [0, 1].

    References:
        Costanzino and Curran (2018), A simple traffic light approach to backtesting expected shortfall, Risks 6; Du and
        Escanciano (2017), equation 4.
    """
    p = check_level(level)
    there, violation = compress(*cumulative_violations(pit, p, mask))
    n, total = there.sum(0), violation.sum(0)
    probability = torch.full_like(total, torch.nan)
    for count in n.unique().tolist():
        if count:
            of = n == count
            probability[of] = violation_law(count, p).cdf(total[of])
    return TrafficLight(
        "traffic light of the expected shortfall",
        _zone(probability),
        total,
        n,
        probability,
        torch.full_like(total, torch.nan),
    )


def _zone(probability: Tensor) -> Int64[Tensor, "*series"]:
    zone = (probability >= YELLOW).long() + (probability >= RED).long()
    return torch.where(probability.isnan(), -1, zone)
