"""RiskMetrics: normal returns with an exponentially weighted volatility."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from qtorch.data.panel import Panel
from qtorch.data.rows import Dates
from qtorch.data.window import WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.forecast import Forecast
from qtorch.models.baselines.baseline import Baseline
from qtorch.models.baselines.request import Request


@dataclass(frozen=True)
class RiskMetrics(Baseline):
    """Normal returns with an EWMA volatility, scaled by the square root of the horizon.

    Attributes:
        spec: horizons, and in its features the decay (.94).
        min_history: returns that an asset needs.
        stale: after this many sessions of its exchange without a price an asset has no forecast.

    References:
        J.P. Morgan (1996), RiskMetrics Technical Document, section 5.2.
    """

    spec: WindowSpec = WindowSpec()
    min_history: int = 60
    stale: int = 5

    def forecast(self, panel: Panel, dates: Dates, *, source: WindowSource | None = None) -> Forecast:
        """Forecasts every asset of a panel at some of its dates; `source` as of `Forecaster.forecast`."""
        request = Request.of(panel, dates, self.spec, source, self.min_history, self.stale)
        scale = torch.where(request.valid, request.source.table.scale[request.position], 1.0)
        return request.answer(scaled_normal(scale, self.spec.horizons), self.spec.horizons)


def scaled_normal(scale: Float[Tensor, "D N"], horizons: tuple[int, ...]) -> Normal:
    """Normal returns without a mean over some horizons, of a one-session volatility; batch shape `[D, H, N]`."""
    root = torch.tensor([math.sqrt(h) for h in horizons], device=scale.device)
    sigma = scale[:, None, :] * root[:, None]
    return Normal(torch.zeros_like(sigma), sigma)
