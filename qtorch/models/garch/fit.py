"""Fits of many series, in pieces that fit a cache, with what follows from the estimates."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from qtorch.data.features.series import FLOOR
from qtorch.models.garch.estimation import estimate
from qtorch.models.garch.likelihood import Sample, backcast, conditional_variance, log_likelihood
from qtorch.models.garch.pooling import pooled
from qtorch.models.garch.recursion import fold, unfold
from qtorch.models.garch.specification import Parameters, Specification

# Cells of a piece: on a processor its dozen arrays stay in the cache, on a GPU they are worth a launch and take some
# gigabytes.
_CELLS = {"cpu": 1 << 19, "cuda": 1 << 25}


@dataclass(frozen=True, eq=False)
class GarchFit:
    """Estimates of `N` series, the series, and what follows from them.

    Attributes:
        specification: what was estimated.
        theta: the parameters, `[N]` each.
        log_likelihood: at the estimates, in nats, of returns in their own units; NaN without returns.
        converged: whether a further step was expected to gain less than 1e-8.
        pooled: whether the series was too short for a fit of its own; see `qtorch.models.garch.pooling`.
        iterations: evaluations of the likelihood with its gradient, 0 where pooled.
        returns: own sessions from the first on; what lies after `count` does not matter.
        count: returns of each series.
        fitted_count: those, of the first, that the fit used; later ones are filtered alone.
        assets: names of the series.
    """

    specification: Specification
    theta: Parameters
    log_likelihood: Float64[Tensor, " N"]
    converged: Bool[Tensor, " N"]
    pooled: Bool[Tensor, " N"]
    iterations: Int64[Tensor, " N"]
    returns: Float64[Tensor, "T N"]
    count: Int64[Tensor, " N"]
    fitted_count: Int64[Tensor, " N"]
    assets: tuple[str, ...]

    @property
    def parameters(self) -> Float64[Tensor, "N k"]:
        """Estimates in the order of `names`."""
        return self.specification.estimated(self.theta)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        return self.specification.names

    @cached_property
    def variance(self) -> Float64[Tensor, "T1 N"]:
        """Conditional variances of each session and, in the place `count`, of the one after the last."""
        T = len(self.returns)
        t = torch.arange(T, device=self.returns.device).unsqueeze(1)
        held = torch.where(t < self.fitted_count, self.returns, 0.0)
        mean = held.sum(0) / self.fitted_count.clamp(min=1)
        before = backcast((held - mean) ** 2, self.fitted_count.clamp(min=1))
        path = conditional_variance(fold(torch.where(t < self.count, self.returns, 0.0)), before, self.theta).path
        after = unfold(path[1:], T)
        return torch.cat([path[0, :1], after])

    @property
    def volatility(self) -> Float64[Tensor, "T N"]:
        """Conditional standard deviations at the own sessions, NaN after the last."""
        return torch.where(self._inside, self.variance[:-1].sqrt(), torch.nan)

    @property
    def residuals(self) -> Float64[Tensor, "T N"]:
        """Standardised residuals at the own sessions, NaN after the last."""
        return (self.returns - self.theta.mu) / self.volatility

    def variance_forecast(self, horizon: int) -> Float64[Tensor, "H N"]:
        """Expected variances of the `H` = horizon sessions after the last."""
        return variance_forecast(self.theta, self.variance.gather(0, self.count.unsqueeze(0)).squeeze(0), horizon)

    def to_frame(self) -> pd.DataFrame:
        """A row a series: parameters, log_likelihood, persistence, converged, pooled, iterations, returns used."""
        columns = dict(zip(self.names, self.parameters.unbind(-1), strict=True))
        columns |= {"persistence": self.theta.persistence, "log_likelihood": self.log_likelihood}
        columns |= {"converged": self.converged, "pooled": self.pooled, "iterations": self.iterations}
        columns["returns"] = self.fitted_count
        index = pd.Index(self.assets, name="asset")
        return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()}, index=index)

    @property
    def _inside(self) -> Bool[Tensor, "T N"]:
        return torch.arange(len(self.returns), device=self.returns.device).unsqueeze(1) < self.count


def variance_forecast(theta: Parameters, tonight: Float64[Tensor, "*D N"], horizon: int) -> Float64[Tensor, "H *D N"]:
    """Expected variances of the next sessions: sigma_{h}^2 = omega (1 + P + ... + P^{h-2}) + P^{h-1} sigma_1^2.

    P is the persistence, the expected share that is left a session later, because the errors have variance 1 and, with
    gamma, half of it from negative ones. With Hansen's errors, whose negative half has a share of the variance that
    differs from half a little, that is arch's approximation too.

    Args:
        theta: parameters.
        tonight: variance of the next session.
        horizon: sessions ahead.

    References:
        Baillie and Bollerslev (1992), Prediction in dynamic models with time-dependent conditional variances, Journal
        of Econometrics 52.
    """
    steps = torch.arange(horizon, dtype=tonight.dtype, device=tonight.device)
    power = theta.persistence ** steps.view(-1, *[1] * tonight.ndim)
    return theta.omega * (power.cumsum(0) - power) + power * tonight


def fit(
    returns: Float64[Tensor, "T N"],
    count: Int64[Tensor, " N"],
    specification: Specification,
    *,
    fitted_count: Int64[Tensor, " N"] | None = None,
    least: int = 250,
    group: Int64[Tensor, " N"] | None = None,
    assets: tuple[str, ...] | None = None,
) -> GarchFit:
    """Fits series given by their own sessions.

    Args:
        returns: from the first session on.
        count: returns of each series.
        specification: what to estimate.
        fitted_count: how many of the first returns to fit to; all by default.
        least: series with fewer of these take their parameters from the others.
        group: series with the same number do so from one another; all by default.
        assets: names.
    """
    N, device = returns.shape[1], returns.device
    used = count if fitted_count is None else fitted_count
    T = max(1, int(used.max()))
    shown = returns[:T]
    inside = torch.arange(T, device=device).unsqueeze(1) < used
    mean = torch.where(inside, shown, 0.0).sum(0) / used.clamp(min=1)
    variance = torch.where(inside, shown - mean, 0.0).square().sum(0) / used.clamp(min=1)
    own = (used >= least) & (variance > FLOOR**2)
    theta = Parameters(*(torch.zeros(N, dtype=returns.dtype, device=device) for _ in Parameters._fields))
    value = torch.full((N,), torch.nan, dtype=returns.dtype, device=device)
    converged, iterations = torch.zeros_like(own), torch.zeros_like(used)
    # Series of one length together, so that few places are padding.
    order = torch.nonzero(own).squeeze(-1)
    order = order[used[order].argsort(stable=True)]
    for piece in order.split(max(1, _CELLS[device.type] // T)) if len(order) else ():
        longest = int(used[piece].max())
        found = estimate(Sample.of(shown[:longest, piece], used[piece]), specification)
        for whole, part in zip(theta, found.parameters, strict=True):
            whole[piece] = part
        value[piece], converged[piece], iterations[piece] = found.log_likelihood, found.converged, found.iterations
    groups = torch.zeros_like(used) if group is None else group
    theta = pooled(theta, own, groups, mean, variance.clamp(min=FLOOR**2), specification)
    borrowed = torch.nonzero(~own & (used > 0)).squeeze(-1)
    if len(borrowed):
        sample = Sample.of(shown[:, borrowed], used[borrowed])
        value[borrowed] = log_likelihood(sample, theta.take(borrowed), specification.errors)
    names = tuple(str(n) for n in range(N)) if assets is None else assets
    return GarchFit(specification, theta, value, converged, ~own, iterations, returns, count, used, names)


def own_sessions(returns: Float64[Tensor, "T N"]) -> tuple[Float64[Tensor, "L N"], Int64[Tensor, " N"]]:
    """Series without their holes, from the first return on, and how many returns each has."""
    there = returns.isfinite()
    order = torch.argsort((~there).to(torch.uint8), dim=0, stable=True)
    count = there.sum(0)
    return returns.gather(0, order)[: max(1, int(count.max()))].nan_to_num(), count


def as_tensor(returns: Float64[Tensor, "T N"] | pd.DataFrame) -> tuple[Float64[Tensor, "T N"], tuple[str, ...]]:
    """Returns as float64, and the names of the series."""
    if isinstance(returns, pd.DataFrame):
        return torch.from_numpy(returns.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)), tuple(
            map(str, returns.columns)
        )
    return returns, tuple(str(n) for n in range(returns.shape[1]))
