"""HAR: volatility from daily, weekly and monthly averages of a variance proxy, with an empirical tail."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.data.features import RangeVariance
from qtorch.data.features.series import FLOOR
from qtorch.data.panel import Panel
from qtorch.data.rows import Dates
from qtorch.data.window import WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.distributions import Empirical
from qtorch.distributions.checks import require
from qtorch.forecast import Forecast
from qtorch.models.baselines.baseline import Baseline
from qtorch.models.baselines.refits import Refit, refits
from qtorch.models.baselines.request import Request

_WEEK, _MONTH = 5, 22
# Of the monthly average, added before a logarithm. Squared returns come near zero, where their logarithm is large and
# says nothing; ranges and realised variances don't.
_LIFT, _LIFT_SQUARE = 0.001, 0.05
_COMPLETE = 0.9  # share of the sessions that must have a proxy for it to be used
_PROXIES = ("realised", "garman_klass", "parkinson", "squared_return")


@dataclass(frozen=True)
class HAR(Baseline):
    """A log-HAR regression of variance with the empirical law of standardised returns.

    With x a session's variance proxy and x^(k) its mean over the last k own sessions, for each horizon h

        log mean(x_{t+1}, ..., x_{t+h}) = c + b_d log x_t + b_w log x^(5)_t + b_m log x^(22)_t + error,

    by least squares for each asset on the last `window` sessions known at a refit. The forecast is the empirical law of
    the last `window` returns over h sessions, each divided by the square root of h times its fitted variance, times
    tonight's: their common scale makes up for the bias of the logarithm, and for nights that a range does not see.
    Returns over more sessions than one overlap.

    To every logarithm's argument, those of the averages and of what comes after them alike, is added
    x^(22)_t / 1000 + 1e-12, or x^(22)_t / 20 + 1e-12 where x is a squared return. The share bounds what one small x can
    do: a squared return comes near zero whenever a price hardly moves, and its logarithm is then large and says
    nothing. 1e-12, a volatility of a millionth a session, keeps the logarithm of a price that never moves finite; no
    market is near it. A return of -100 % counts as one a trillionth above it in the returns over h sessions.

    An asset with fewer than `least` complete sessions takes the mean coefficients of the others at that refit, with a
    constant of its own; without others, .3, .3 and .3.

    A forecast holds `window` values for each date, horizon and asset, and an `Empirical` takes 20 bytes for each of
    them, 41 while it is made: with the default window 40 kB, so that a thousand dates of a hundred assets and two
    horizons take 8 GB, and 16 GB at the peak. Ask for some dates at a time.

    Attributes:
        proxy: of a session's variance: `realised` (the field realised_variance), `garman_klass`, `parkinson` or
            `squared_return`; None takes for each asset at each refit the first of them that nine tenths of its sessions
            in the window have. So does an asset that lacks the one named. A session without it has its squared return.
        window: own sessions of the regression and of the residuals.
        refit_every: rows of the panel between refits, as of `Garch`.
        least: complete sessions that a regression of its own needs.
        spec: horizons.
        min_history: returns that an asset needs to be forecast.
        stale: after this many sessions of its exchange without a price an asset has no forecast.

    References:
        Corsi (2009), A simple approximate long-memory model of realized volatility, Journal of Financial Econometrics
        7, section 2, for the regression; Andersen, Bollerslev and Diebold (2007), Roughing it up, Review of Economics
        and Statistics 89, for its logarithmic form.
    """

    proxy: str | None = None
    window: int = 2000
    refit_every: int = 21
    least: int = 250
    spec: WindowSpec = WindowSpec()
    min_history: int = 60
    stale: int = 5

    def __post_init__(self) -> None:
        """Checks the settings."""
        require(self.proxy is None or self.proxy in _PROXIES, "proxy", self.proxy, f"give one of {', '.join(_PROXIES)}")
        require(self.window >= self.least >= 10, "least", self.least, f"give 10 to {self.window}, the window")
        require(self.refit_every >= 1, "refit_every", self.refit_every, "give at least 1 row")
        shortest = _MONTH + self.spec.horizons[-1] + 10
        require(self.min_history >= shortest, "min_history", self.min_history, f"give at least {shortest} returns")

    def forecast(self, panel: Panel, dates: Dates, *, source: WindowSource | None = None) -> Forecast:
        """Forecasts every asset of a panel at some of its dates; `source` as of `Forecaster.forecast`."""
        request = Request.of(panel, dates, self.spec, source, self.min_history, self.stale)
        D, N = request.valid.shape
        proxies = self._proxies(request)
        growth = torch.log1p(request.returns.nan_to_num().clamp(min=-1 + 1e-12)).cumsum(0)
        values = torch.full((D, len(self.spec.horizons), N, self.window), torch.nan, device=request.valid.device)
        for refit in refits(request, self.refit_every):
            chosen, share = _choose(proxies, refit, self.window)
            regressors, lift = _regressors(chosen, share)
            for h, horizon in enumerate(self.spec.horizons):
                ahead = growth.roll(-horizon, 0) - growth  # what runs over the end is not known at any date
                target = _ahead(chosen, horizon, lift)
                coefficients = self._estimate(regressors, target, refit, horizon)
                sigma = (0.5 * (regressors * coefficients).sum(-1)).exp() * horizon**0.5
                residuals = torch.expm1(ahead) / sigma
                for d, date in enumerate(refit.dates.tolist()):
                    place = refit.last[d] - horizon - torch.arange(self.window, device=sigma.device).unsqueeze(1)
                    known = residuals.gather(0, place.clamp(min=0))
                    tonight = sigma.gather(0, refit.last[d].unsqueeze(0))
                    values[date, h] = torch.where(place >= 0, known * tonight, torch.nan).T.float()
        values = torch.where(request.valid[:, None, :, None], values, 0.0)
        return request.answer(Empirical(values), self.spec.horizons)

    def _proxies(self, request: Request) -> list[Float64[Tensor, "L N"]]:
        """The variance proxies that the panel has fields for, the preferred first; the last has no holes."""
        fields, found = request.panel.fields, {"squared_return": request.returns**2}
        if "realised_variance" in fields:
            found["realised"] = request.own(request.sessions.field("realised_variance"))
        if {"open", "high", "low"} <= set(fields):
            for name in ("garman_klass", "parkinson"):
                found[name] = request.own(RangeVariance(name).own(request.sessions)[:, :, 0])
        named = () if self.proxy is None else (self.proxy,)
        return [found[name] for name in (*named, *_PROXIES) if name in found]

    def _estimate(
        self, regressors: Float64[Tensor, "L N 4"], target: Float64[Tensor, "L N"], refit: Refit, horizon: int
    ) -> Float64[Tensor, "N 4"]:
        """Least squares on the sessions whose target is known at the refit."""
        last = refit.known - horizon
        first = (last - self.window + 1).clamp(min=_MONTH - 1)
        begin = int(first.min())
        end = max(begin, int(last.max()) + 1)  # no rows where nothing is to be forecast
        t = torch.arange(begin, end, device=last.device).unsqueeze(1)
        inside = torch.logical_and(t >= first, t <= last)
        x = (regressors[begin:end] * inside.unsqueeze(-1)).movedim(0, 1)  # [N, rows, 4]
        y = (target[begin:end].nan_to_num() * inside).T.unsqueeze(-1)
        moments, products, count = x.mT @ x, (x.mT @ y).squeeze(-1), inside.sum(0)
        # A price that never moves has the same regressors every day; the ridge leaves all others as they are.
        ridge = 1e-9 * moments.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=1.0)
        identity = torch.eye(4, dtype=x.dtype, device=x.device)
        coefficients = torch.linalg.solve(moments + ridge[:, None, None] * identity, products)
        own = count >= self.least
        slopes = coefficients[own, 1:].mean(0) if bool(own.any()) else coefficients.new_full((3,), 0.3)
        constant = (products[:, 0] - moments[:, 0, 1:] @ slopes) / count.clamp(min=1)
        borrowed = torch.cat([constant.unsqueeze(-1), slopes.expand(len(count), 3)], dim=-1)
        return torch.where(own.unsqueeze(-1), coefficients, borrowed)


def _choose(
    proxies: list[Float64[Tensor, "L N"]], refit: Refit, window: int
) -> tuple[Float64[Tensor, "L N"], Float64[Tensor, " N"]]:
    """For each asset the first proxy that most of its last sessions have; squared returns, the last, fill its holes.

    Also the share of the monthly average that is added to it before a logarithm.
    """
    *preferred, squares = proxies
    chosen = complete = squares.nan_to_num()
    share = torch.full_like(chosen[0], _LIFT_SQUARE)
    known = refit.known.clamp(min=0).unsqueeze(0)
    before = known - window
    sessions = known - before.clamp(min=-1)
    for proxy in reversed(preferred):
        so_far = proxy.isfinite().cumsum(0)
        count = so_far.gather(0, known) - torch.where(before >= 0, so_far.gather(0, before.clamp(min=0)), 0)
        filled = torch.where(proxy.isfinite(), proxy, complete)
        enough = count >= _COMPLETE * sessions
        chosen = torch.where(enough, filled, chosen)
        share = torch.where(enough.squeeze(0), _LIFT_SQUARE if proxy is squares else _LIFT, share)
    return chosen, share


def _regressors(
    variance: Float64[Tensor, "L N"], share: Float64[Tensor, " N"]
) -> tuple[Float64[Tensor, "L N 4"], Float64[Tensor, "L N"]]:
    """1 and the logs of the daily, weekly and monthly averages; and what is added before the logarithm."""
    month = _trailing_mean(variance, _MONTH)
    lift = share * month + FLOOR**2
    logs = [torch.log(average + lift) for average in (variance, _trailing_mean(variance, _WEEK), month)]
    return torch.stack([torch.ones_like(month), *logs], dim=-1), lift


def _trailing_mean(values: Float64[Tensor, "L N"], window: int) -> Float64[Tensor, "L N"]:
    """The mean over the last `window` places, of those there are."""
    total = torch.nn.functional.pad(values, (0, 0, window, 0)).unfold(0, window, 1)[1:].sum(-1)
    count = torch.arange(1, len(values) + 1, device=values.device).clamp(max=window).unsqueeze(1)
    return total / count


def _ahead(variance: Float64[Tensor, "L N"], horizon: int, lift: Float64[Tensor, "L N"]) -> Float64[Tensor, "L N"]:
    """The log of the mean over the next `horizon` places; NaN where they are not all there."""
    mean = _trailing_mean(variance, horizon)
    later = torch.full_like(mean, torch.nan)
    later[: len(mean) - horizon] = mean[horizon:]
    return torch.log(later + lift)
