"""Filtered historical simulation: past returns in units of their volatility, times tonight's."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.data.panel import Panel
from qtorch.data.rows import Dates
from qtorch.data.window import WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.distributions import Empirical
from qtorch.distributions.checks import require
from qtorch.forecast import Forecast
from qtorch.models.baselines.baseline import Baseline
from qtorch.models.baselines.filters import Ewma, Filter, Filtered
from qtorch.models.baselines.request import Request

_CELLS = 1 << 22  # of simulated paths at once


@dataclass(frozen=True)
class FilteredHistoricalSimulation(Baseline):
    """The empirical law of the last standardised residuals of a volatility filter, times tonight's volatility.

    Over one session the law has the mass 1 / n on each of mu + sigma z_i, for the last n <= `window` residuals: its
    quantile at p is the ceil(n p)-th lowest and its tail mean the mean of those up to it. Over h sessions, `paths` of
    returns are simulated: residuals drawn with replacement go through the filter's own recursion, so that volatility
    clusters along a path, and returns compound (a loss is cut at -100 %). Path i begins with residual i modulo n, so
    that the first session's law is the exact one if n divides `paths`. The draws come from `seed` alone and are the
    same for all dates and assets: a forecast does not depend on what else is asked for, and residuals of assets with
    the same sessions stay together.

    An `Empirical` takes 20 bytes for each value, 41 while it is made: a thousand dates of a hundred assets and two
    horizons are 8 GB with the default window, and 16 GB at the peak. Ask for some dates at a time.

    Attributes:
        filter: `Ewma`, or a `Garch`, whose errors then are the residuals; its horizons, min_history and stale do not
            matter here.
        window: how many residuals; an asset with fewer is forecast from those it has.
        paths: of returns, over more than one session.
        seed: of the draws.
        spec: horizons.
        min_history: returns that an asset needs.
        stale: after this many sessions of its exchange without a price an asset has no forecast.

    References:
        Barone-Adesi, Giannopoulos and Vosper (1999), VaR without correlations for portfolios of derivative securities,
        Journal of Futures Markets 19; Hull and White (1998), Journal of Risk 1.
    """

    filter: Filter = Ewma()
    window: int = 2000
    paths: int = 2000
    seed: int = 0
    spec: WindowSpec = WindowSpec()
    min_history: int = 60
    stale: int = 5

    def __post_init__(self) -> None:
        """Checks the settings."""
        require(self.window >= 1, "window", self.window, "give at least 1 residual")
        require(self.paths >= 1, "paths", self.paths, "give at least 1 path")
        require(self.min_history > 20, "min_history", self.min_history, "give more than 20 returns, an EWMA's warm-up")

    def forecast(self, panel: Panel, dates: Dates, *, source: WindowSource | None = None) -> Forecast:
        """Forecasts every asset of a panel at some of its dates; `source` as of `Forecaster.forecast`."""
        request = Request.of(panel, dates, self.spec, source, self.min_history, self.stale)
        D, N = request.valid.shape
        S = max(self.window, self.paths if self.spec.horizons[-1] > 1 else 0)
        shape, device = (D, len(self.spec.horizons), N, S), request.valid.device
        values = torch.full(shape, torch.nan, device=device)
        uniforms = self._uniforms().to(device)
        for piece in self.filter.filtered(request):
            for e in range(0, len(piece.dates), max(1, _CELLS // (N * S))):
                some = slice(e, e + max(1, _CELLS // (N * S)))
                for h, returns in enumerate(self._returns(piece, some, uniforms)):
                    values[piece.dates[some], h, :, : returns.shape[-1]] = returns.float()
        values = torch.where(request.valid[:, None, :, None], values, 0.0)
        return request.answer(Empirical(values), self.spec.horizons)

    def _uniforms(self) -> Float64[Tensor, "H S"]:
        """Draws for the sessions of the paths after the first, from a generator on the CPU: the same on any device."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(self.spec.horizons[-1] - 1, self.paths, generator=generator, dtype=torch.float64)

    def _returns(
        self, piece: Filtered, dates: slice, uniforms: Float64[Tensor, "H S"]
    ) -> list[Float64[Tensor, "E N _"]]:
        """The returns of each horizon at some dates of a piece."""
        theta, residuals = piece.theta, piece.latest(dates, self.window)
        mu, omega, alpha, gamma, beta = (value.unsqueeze(-1) for value in theta[:5])
        variance = piece.tonight[dates].unsqueeze(-1)
        found = [mu + variance.sqrt() * residuals] if self.spec.horizons[0] == 1 else []
        if self.spec.horizons[-1] == 1:
            return found
        count = residuals.isfinite().sum(-1, keepdim=True).clamp(min=1)
        which = torch.arange(self.paths, device=count.device) % count
        growth = torch.ones_like(variance)
        for session in range(1, self.spec.horizons[-1] + 1):
            if session > 1:
                which = (uniforms[session - 2] * count).long()
            e = variance.sqrt() * residuals.gather(-1, which)
            growth = growth * (1 + mu + e).clamp(min=0.0)
            variance = omega + (alpha + gamma * (e < 0)) * e * e + beta * variance
            if session in self.spec.horizons and session > 1:
                found.append(growth - 1)
        return found
