"""What is estimated: the parameters of a GARCH(1,1), their bounds, and coordinates in which there are none."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.distributions.checks import require

Errors = Literal["normal", "student_t", "skewed_t"]

# The bounds of Kevin Sheppard's arch, so that estimates agree with it where a bound binds.
LEAST_OMEGA = 1e-8  # of the mean squared residual
LEAST_NU = 2.05
MOST_NU = {"student_t": 500.0, "skewed_t": 300.0}
MOST_PERSISTENCE = 1 - 1e-9  # below 1, so that the variance has a long-run mean
MOST_SKEW = 1 - 1e-6


class Parameters(NamedTuple):
    """The parameters of `N` series; those that a specification lacks are 0 (`gamma`, `skew`) or infinite (`nu`).

    Attributes:
        mu: constant mean.
        omega: constant of the variance.
        alpha: weight of the squared residual.
        gamma: further weight of a negative residual's square.
        beta: weight of the variance before.
        nu: degrees of freedom.
        skew: Hansen's lambda.
    """

    mu: Float64[Tensor, " N"]
    omega: Float64[Tensor, " N"]
    alpha: Float64[Tensor, " N"]
    gamma: Float64[Tensor, " N"]
    beta: Float64[Tensor, " N"]
    nu: Float64[Tensor, " N"]
    skew: Float64[Tensor, " N"]

    @property
    def persistence(self) -> Float64[Tensor, " N"]:
        """The sum alpha + gamma / 2 + beta, the share of a variance's deviation that is left a session later."""
        return self.alpha + self.gamma / 2 + self.beta

    def take(self, index: Tensor) -> "Parameters":
        """The parameters of some of the series."""
        return Parameters(*(value[index] for value in self))


@dataclass(frozen=True)
class Specification:
    """A GARCH(1,1) or GJR-GARCH(1,1,1) with constant mean and standardised errors.

    The bounds are omega > 0, alpha >= 0, alpha + gamma >= 0, beta >= 0, alpha + gamma / 2 + beta < 1, 2.05 <= nu <= 500
    (300 with skew) and |lambda| < 1. `natural` maps any vector x to parameters within them:

        mu = m + s x,  omega = s^2 (1e-8 + x^2),  alpha + gamma / 2 + beta = sin^2 x,
        (alpha + gamma / 2) / (alpha + gamma / 2 + beta) = sin^2 x,  (alpha + gamma) / (2 alpha + gamma) = sin^2 x,
        1 / nu between its bounds as sin^2 x,  lambda = tanh x,

    with m and s^2 the mean and variance of the series. Where an optimum lies on a bound (alpha = 0 is common with
    gamma) the likelihood as a function of x has an ordinary, curved optimum there, which quasi-Newton steps find as
    fast as any other; a logarithm would send x to infinity.

    Attributes:
        o: 1 with gamma, 0 without.
        errors: the law of the standardised errors.
    """

    o: int = 0
    errors: Errors = "normal"

    def __post_init__(self) -> None:
        """Checks the settings."""
        require(self.o in (0, 1), "o", self.o, "give 0, or 1 for a further weight of negative residuals")
        laws = ("normal", "student_t", "skewed_t")
        require(self.errors in laws, "errors", self.errors, f"give one of {', '.join(laws)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters that are estimated, `k` of them."""
        asymmetry = ("gamma",) if self.o else ()
        return ("mu", "omega", "alpha", *asymmetry, "beta", *(("nu", "lambda")[: self._shapes]))

    @property
    def _shapes(self) -> int:
        return {"normal": 0, "student_t": 1, "skewed_t": 2}[self.errors]

    def estimated(self, parameters: Parameters) -> Float64[Tensor, "N k"]:
        """The parameters that are estimated, side by side in the order of `names`."""
        fields = parameters._asdict() | {"lambda": parameters.skew}
        return torch.stack([fields[name] for name in self.names], dim=-1)

    def natural(
        self, x: Float64[Tensor, "N k"], mean: Float64[Tensor, " N"], variance: Float64[Tensor, " N"]
    ) -> Parameters:
        """The parameters at free coordinates x of series with some mean and variance."""
        columns = list(x.unbind(-1))
        mu = mean + variance.sqrt() * columns.pop(0)
        omega = variance * (LEAST_OMEGA + columns.pop(0) ** 2)
        persistence = MOST_PERSISTENCE * columns.pop(0).sin() ** 2
        news = persistence * columns.pop(0).sin() ** 2
        negative = 2 * columns.pop(0).sin() ** 2 * news if self.o else news
        alpha = 2 * news - negative
        nu, skew = torch.full_like(mu, math.inf), torch.zeros_like(mu)
        if self._shapes:
            low, high = 1 / MOST_NU[self.errors], 1 / LEAST_NU
            nu = 1 / (low + (high - low) * columns.pop(0).sin() ** 2)
        if self._shapes == 2:
            skew = MOST_SKEW * columns.pop(0).tanh()
        return Parameters(mu, omega, alpha, negative - alpha, persistence - news, nu, skew)

    def free(
        self, parameters: Parameters, mean: Float64[Tensor, " N"], variance: Float64[Tensor, " N"]
    ) -> Float64[Tensor, "N k"]:
        """The inverse of `natural`, with angles in [0, pi / 2] and a positive root for omega."""
        news = parameters.alpha + parameters.gamma / 2
        negative = parameters.alpha + parameters.gamma
        tiny = torch.finfo(news.dtype).tiny
        columns = [
            (parameters.mu - mean) / variance.sqrt(),
            (parameters.omega / variance - LEAST_OMEGA).clamp(min=0).sqrt(),
            _angle(parameters.persistence / MOST_PERSISTENCE),
            _angle(news / parameters.persistence.clamp(min=tiny)),
        ]
        if self.o:
            columns.append(_angle(negative / (2 * news).clamp(min=tiny)))
        if self._shapes:
            low, high = 1 / MOST_NU[self.errors], 1 / LEAST_NU
            columns.append(_angle((1 / parameters.nu - low) / (high - low)))
        if self._shapes == 2:
            columns.append((parameters.skew / MOST_SKEW).atanh())
        return torch.stack(columns, dim=-1)


def _angle(share: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
    """The angle in [0, pi / 2] whose squared sine is a share."""
    return share.clamp(0, 1).sqrt().asin()
