"""GARCH and GJR-GARCH as forecasters and as filters, with all refits of a backtest estimated in batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import Distribution, Normal

from qtorch.data.panel import Panel
from qtorch.data.rows import Dates
from qtorch.data.window import WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.distributions import HansenSkewedT, StudentT
from qtorch.distributions.checks import require
from qtorch.forecast import Forecast
from qtorch.models.baselines.baseline import Baseline
from qtorch.models.baselines.filters import Filtered
from qtorch.models.baselines.refits import Refit, refits
from qtorch.models.baselines.request import Request
from qtorch.models.garch.fit import GarchFit, as_tensor, fit, own_sessions, variance_forecast
from qtorch.models.garch.specification import Errors, Parameters, Specification

_CELLS = 1 << 23  # of the windows that are held at once: 64 MB, and some ten times as much for what is made of them


@dataclass(frozen=True)
class Garch(Baseline):
    """GARCH(1,1), or with `o=1` GJR-GARCH(1,1,1), with constant mean, by maximum likelihood for each asset.

    With e_t = r_t - mu = sigma_t z_t, sigma_{t+1}^2 = omega + (alpha + gamma 1{e_t < 0}) e_t^2 + beta sigma_t^2.

    Over one session the forecast is the law of mu + sigma z, exactly. Over h sessions it is the same law with h times
    the mean and the sum of the h expected variances: compounding apart, its mean and variance are the model's, but not
    its shape, because a sum of h returns has tails and a skewness of its own. `FilteredHistoricalSimulation` simulates
    those.

    An asset with fewer than `least` returns at a refit, or without movement, takes the medians of the other assets'
    parameters and its own variance; see `qtorch.models.garch.pooling`. It is never left out for that.

    Attributes:
        o: 1 with gamma, 0 without.
        errors: law of z: `normal`, `student_t`, or `skewed_t` for Hansen's.
        window: own returns that a fit uses; an asset with fewer is fitted to those it has.
        refit_every: rows of the panel from one refit to the next, the first of which is at the first date asked for; in
            between, the returns are filtered daily.
        least: returns that a fit of its own needs.
        spec: horizons.
        min_history: returns that an asset needs to be forecast.
        stale: after this many sessions of its exchange without a price an asset has no forecast.

    References:
        Bollerslev (1986), Generalized autoregressive conditional heteroskedasticity; Glosten, Jagannathan and Runkle
        (1993), On the relation between the expected value and the volatility of the nominal excess return on stocks;
        Hansen (1994) for the skewed errors.
    """

    o: int = 0
    errors: Errors = "normal"
    window: int = 2000
    refit_every: int = 21
    least: int = 250
    spec: WindowSpec = WindowSpec()
    min_history: int = 60
    stale: int = 5

    def __post_init__(self) -> None:
        """Checks the settings."""
        Specification(self.o, self.errors)
        require(self.window >= self.least >= 50, "least", self.least, f"give 50 to {self.window}, the window")
        require(self.refit_every >= 1, "refit_every", self.refit_every, "give at least 1 row")
        require(self.min_history >= 2, "min_history", self.min_history, "give at least 2 returns")

    @property
    def specification(self) -> Specification:
        """What is estimated."""
        return Specification(self.o, self.errors)

    def estimate(self, returns: Float64[Tensor, "T N"] | pd.DataFrame) -> GarchFit:
        """The parameters of each series, of all its returns.

        Args:
            returns: in any unit (decimals or per cent: mu and omega follow it), NaN where a series has none; each is
                taken as its own sessions, without the holes. A frame has a column a series.

        Example:
            >>> import torch
            >>> _ = torch.manual_seed(0)
            >>> returns = 0.01 * torch.randn(1000, 3, dtype=torch.float64)
            >>> Garch(errors="student_t").estimate(returns).names
            ('mu', 'omega', 'alpha', 'beta', 'nu')
        """
        values, names = as_tensor(returns)
        own, count = own_sessions(values)
        return fit(own, count, self.specification, least=self.least, assets=names)

    def forecast(self, panel: Panel, dates: Dates, *, source: WindowSource | None = None) -> Forecast:
        """Forecasts every asset of a panel at some of its dates; `source` as of `Forecaster.forecast`."""
        request = Request.of(panel, dates, self.spec, source, self.min_history, self.stale)
        longest = self.spec.horizons[-1]
        at = torch.tensor(self.spec.horizons, device=request.valid.device) - 1
        D, N = request.valid.shape
        mean = torch.zeros(D, len(at), N, dtype=torch.float64, device=at.device)
        variance, nu, skew = torch.ones_like(mean), torch.full_like(mean, 8.0), torch.zeros_like(mean)
        for piece in self.filtered(request):
            ahead = variance_forecast(piece.theta, piece.tonight, longest).cumsum(0)[at]
            mean[piece.dates] = (piece.theta.mu * (at + 1).unsqueeze(-1)).expand(len(piece.dates), -1, -1)
            variance[piece.dates] = ahead.movedim(0, 1)
            nu[piece.dates], skew[piece.dates] = piece.theta.nu[None, None], piece.theta.skew[None, None]
        valid = request.valid[:, None, :]
        mean, skew = torch.where(valid, mean, 0.0), torch.where(valid, skew, 0.0)
        sigma, nu = torch.where(valid, variance, 1.0).sqrt(), torch.where(valid, nu, 8.0)
        return request.answer(self._law(mean, sigma, nu, skew), self.spec.horizons)

    def filtered(self, request: Request) -> Iterator[Filtered]:
        """The returns of a request filtered with the parameters of each refit, a piece a refit."""
        N, due = request.valid.shape[1], refits(request, self.refit_every)
        at_once = max(1, _CELLS // (N * (self.window + self.refit_every)))
        for r in range(0, len(due), at_once):
            yield from self._fitted(request, due[r : r + at_once])

    def _fitted(self, request: Request, due: list[Refit]) -> Iterator[Filtered]:
        """Some refits, whose series are estimated together."""
        N, device = request.valid.shape[1], request.valid.device
        known, end = torch.stack([refit.known for refit in due]), torch.stack([refit.last.amax(0) for refit in due])
        begin = (known - self.window + 1).clamp(min=0)
        length = torch.where(known >= 0, end - begin + 1, 0)
        place = begin + torch.arange(max(1, int(length.max())), device=device)[:, None, None]
        own = request.returns[place.clamp(max=len(request.returns) - 1), torch.arange(N, device=device)]
        group = torch.arange(len(due), device=device).repeat_interleave(N)
        used = torch.where(known >= 0, known - begin + 1, 0)
        found = fit(
            own.flatten(1),
            length.flatten(),
            self.specification,
            fitted_count=used.flatten(),
            least=self.least,
            group=group,
        )
        residuals, variance = (values.unflatten(1, (len(due), N)) for values in (found.residuals, found.variance))
        for r, refit in enumerate(due):
            theta = Parameters(*(value.view(len(due), N)[r] for value in found.theta))
            last = torch.where(refit.valid, refit.last - begin[r], 0)
            yield Filtered(refit.dates, theta, residuals[:, r], variance[:, r], last)

    def _law(self, mean: Tensor, sigma: Tensor, nu: Tensor, skew: Tensor) -> Distribution:
        """The law of mean + sigma z."""
        if self.errors == "normal":
            return Normal(mean, sigma)
        if self.errors == "student_t":
            return StudentT(nu, mean, sigma * torch.sqrt((nu - 2) / nu))
        return HansenSkewedT(nu, skew, mean, sigma)
