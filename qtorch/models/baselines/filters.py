"""Volatility filters: conditional variances of past returns, and the recursion that carries them on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.models.baselines.request import Request
from qtorch.models.garch.recursion import fold, scan, unfold
from qtorch.models.garch.specification import Parameters

_WARM_UP = 20  # returns before an EWMA is taken for a volatility, as in the features


@dataclass(frozen=True, eq=False)
class Filtered:
    """Some of a request's dates, all its assets, filtered with one set of parameters each.

    Attributes:
        dates: positions `E` among the dates of the request.
        theta: of sigma_{t+1}^2 = omega + (alpha + gamma 1{e_t < 0}) e_t^2 + beta sigma_t^2, e_t = r_t - mu; `[N]` each.
        residuals: e_t / sigma_t at places `T` of own sessions; NaN where there is none.
        variance: sigma_t^2 at the same places and at the one after the last.
        last: the place of the last return that is known at each date; 0 where there is no forecast.
    """

    dates: Int64[Tensor, " E"]
    theta: Parameters
    residuals: Float64[Tensor, "T N"]
    variance: Float64[Tensor, "T1 N"]
    last: Int64[Tensor, "E N"]

    @property
    def tonight(self) -> Float64[Tensor, "E N"]:
        """The variance of the session after the last."""
        return self.variance.gather(0, self.last + 1)

    def latest(self, dates: slice, window: int) -> Float64[Tensor, "E N S"]:
        """The last `S` = window residuals known at some of the dates, the latest first; NaN where there are fewer."""
        N = self.residuals.shape[1]
        place = self.last[dates].unsqueeze(-1) - torch.arange(window, device=self.last.device)
        column = torch.arange(N, device=self.last.device).unsqueeze(-1)
        chosen = self.residuals.flatten()[place.clamp(min=0) * N + column]
        return torch.where(place >= 0, chosen, torch.nan)


@runtime_checkable
class Filter(Protocol):
    """What filters the returns of a request."""

    def filtered(self, request: Request) -> Iterator[Filtered]:
        """The request's dates, in pieces that together hold each of them once."""
        ...


@dataclass(frozen=True)
class Ewma:
    """An exponentially weighted mean of squared returns, over the asset's own sessions; nothing is estimated.

    The weights of the past sessions sum to 1 from the first on, as in pandas and the features. Residuals begin after 20
    returns.

    Attributes:
        decay: weight of a session over that of the next.

    References:
        J.P. Morgan (1996), RiskMetrics Technical Document, section 5.2.
    """

    decay: float = 0.94

    def __post_init__(self) -> None:
        """Checks the decay."""
        require(0 < self.decay < 1, "decay", self.decay, "give a number between 0 and 1, such as 0.94")

    def filtered(self, request: Request) -> Iterator[Filtered]:
        """All dates at once."""
        returns = request.returns
        T, N = returns.shape
        zero = returns.new_zeros(N)
        path = scan(fold(returns.nan_to_num() ** 2), zero + self.decay, zero)
        mass = (1 - self.decay ** torch.arange(1, T + 1, dtype=returns.dtype, device=returns.device)) / (1 - self.decay)
        after = unfold(path[1:], T) / mass.unsqueeze(1)
        variance = torch.cat([torch.full_like(after[:1], torch.nan), after]).clamp(min=request.floor)
        residuals = returns / variance[:-1].sqrt()
        residuals[:_WARM_UP] = torch.nan
        every = torch.arange(len(request.dates), device=returns.device)
        theta = Parameters(zero, zero, zero + 1 - self.decay, zero, zero + self.decay, zero + torch.inf, zero)
        yield Filtered(every, theta, residuals, variance, request.last)
