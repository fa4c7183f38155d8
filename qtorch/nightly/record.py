"""One model's risk numbers of past days beside what came, tested and scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.forecast import Forecast
from qtorch.risk import christoffersen, fz0, kupiec, pinball, traffic_light

ZONES = np.array(["green", "yellow", "red", ""], dtype=object)
ZONE_SESSIONS, ZONE_LEVEL = 250, 0.99


@dataclass(frozen=True, eq=False)
class Record:
    """One model's risk numbers of each day beside what came.

    Attributes:
        returns: realised, NaN where none.
        value_at_risk: by level, positive losses forecast for those returns.
        expected_shortfall: by level.
    """

    returns: Float64[Tensor, "T N"]
    value_at_risk: Mapping[float, Float64[Tensor, "T N"]]
    expected_shortfall: Mapping[float, Float64[Tensor, "T N"]]

    @classmethod
    def of(cls, forecast: Forecast, returns: Tensor, levels: Sequence[float]) -> "Record":
        """The record of a forecast's first horizon."""
        return cls(
            returns.double(),
            {level: forecast.value_at_risk(level)[:, 0] for level in levels},
            {level: forecast.expected_shortfall(level)[:, 0] for level in levels},
        )

    def exceeded(self, level: float) -> Tensor:
        """Days on which the loss was beyond the value at risk."""
        return self.returns < -self.value_at_risk[level]

    def mask(self, level: float) -> Tensor:
        """Days that count."""
        return self.returns.isfinite() & self.value_at_risk[level].isfinite()

    def recent(self, level: float) -> Tensor:
        """The last 250 days of each series that count."""
        mask = self.mask(level)
        return mask & (mask.flip(0).cumsum(0).flip(0) <= ZONE_SESSIONS)

    def zones(self) -> tuple[Tensor, Tensor, Tensor]:
        """Basel zone, exceedances and observations of each series over its last 250 observed days at 99 %."""
        light = traffic_light(self.exceeded(ZONE_LEVEL), ZONE_LEVEL, self.recent(ZONE_LEVEL))
        return light.zone, light.count.long(), light.observations

    def table(self, names: Sequence[str], model: str) -> pd.DataFrame:
        """Tests and scores, one row per series and level."""
        zone = None
        if ZONE_LEVEL in self.value_at_risk:
            zone = ZONES[self.zones()[0].numpy()]
        frames = []
        for level, var in self.value_at_risk.items():
            mask, exceeded = self.mask(level), self.exceeded(level)
            coverage = kupiec(exceeded, level, mask)
            independence, conditional = christoffersen(exceeded, level, mask)
            y, v = (torch.where(mask, x, torch.nan) for x in (self.returns, var))
            e = torch.where(mask, self.expected_shortfall[level], torch.nan)
            count = mask.sum(0)
            frames.append(
                pd.DataFrame(
                    {
                        "asset": names,
                        "model": model,
                        "level": level,
                        "observations": count.numpy(),
                        "exceedances": (exceeded & mask).sum(0).numpy(),
                        "expected_exceedances": (count * (1 - level)).numpy(),
                        "kupiec_statistic": coverage.statistic.numpy(),
                        "kupiec_p": coverage.p_value.numpy(),
                        "independence_statistic": independence.statistic.numpy(),
                        "independence_p": independence.p_value.numpy(),
                        "conditional_coverage_p": conditional.p_value.numpy(),
                        "traffic_light": zone if zone is not None and level == ZONE_LEVEL else "",
                        "pinball": pinball(y, v, level).nanmean(0).numpy(),
                        "fz0": fz0(100 * y, 100 * v, 100 * e, level).nanmean(0).numpy(),
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)
