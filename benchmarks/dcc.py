"""Engle's dynamic conditional correlations, a baseline of joint forecasts."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from scipy.optimize import minimize
from torch import Tensor

from qtorch.models.garch.recursion import fold, scan, unfold


@dataclass(frozen=True)
class DCC:
    """DCC(1,1): Q_{t+1} = (1 - a - b) S + a z_t z_t' + b Q_t, correlations R_t = Q_t scaled to a diagonal of 1.

    Q begins at S. Where a residual is missing, its products count as those of S.

    Attributes:
        target: S, the correlations of the standardised residuals.
        a: weight of the last session, at least 0.
        b: of what was known before it, at least 0, with a + b < 1.

    References:
        Engle (2002), Dynamic conditional correlation, Journal of Business and Economic Statistics 20, for the
        recursion; Pakel, Shephard, Sheppard and Engle (2021), Fitting vast dimensional time-varying covariance models,
        Journal of Business and Economic Statistics 39, for the composite likelihood of all pairs.
    """

    target: Float64[Tensor, "N N"]
    a: float
    b: float

    @classmethod
    def fitted(cls, residuals: Float64[Tensor, "T N"], start: "DCC | None" = None) -> "DCC":
        """By the normal composite log-likelihood of all pairs, S by targeting.

        Args:
            residuals: standardised, NaN where there is none.
            start: a fit to start from.
        """
        target = correlations(residuals)

        def loss(x: np.ndarray) -> float:
            return -pair_likelihood(cls(target, *_weights(x)), residuals)

        x = _free(0.02, 0.95) if start is None else _free(start.a, start.b)
        simplex = x + np.array([[0.0, 0.0], [0.3, 0.0], [0.0, 0.5]])
        options = {"initial_simplex": simplex, "xatol": 0.02, "fatol": 1e-6, "maxfev": 80}
        return cls(target, *_weights(minimize(loss, x, method="Nelder-Mead", options=options).x))

    def path(self, residuals: Float64[Tensor, "T N"]) -> Float64[Tensor, "T1 N N"]:
        """R of each session and of the one after the last."""
        T, N = residuals.shape
        rows, columns = torch.tril_indices(N, N)
        S = self.target[rows, columns]
        product = residuals[:, rows] * residuals[:, columns]
        inputs = (1 - self.a - self.b) * S + self.a * torch.where(product.isfinite(), product, S)
        after = unfold(scan(fold(inputs), torch.full_like(S, self.b), S)[1:], T)
        Q = torch.empty(T + 1, N, N, dtype=residuals.dtype)
        Q[:, rows, columns] = Q[:, columns, rows] = torch.cat([S.unsqueeze(0), after])
        size = torch.diagonal(Q, dim1=-2, dim2=-1).sqrt()
        return Q / (size.unsqueeze(-1) * size.unsqueeze(-2))


def whitened(residuals: Float64[Tensor, "T N"], path: Float64[Tensor, "T N N"]) -> Float64[Tensor, "T N"]:
    """Residual vectors without their day's correlations, R_t^(-1/2) z_t.

    Symmetric roots, so that the order of the assets does not matter.
    """
    return torch.einsum("tij,tj->ti", _power(path, -0.5), residuals)


def recoloured(white: Float64[Tensor, "T N"], tonight: Float64[Tensor, "N N"]) -> Float64[Tensor, "T N"]:
    """The same given the correlations of a night."""
    return white @ _power(tonight, 0.5)


def correlations(residuals: Float64[Tensor, "T N"]) -> Float64[Tensor, "N N"]:
    """Of pairs of residuals that are both there, about 0."""
    there = residuals.isfinite().double()
    z = residuals.nan_to_num()
    return z.T @ z / torch.sqrt((z**2).T @ there * (there.T @ z**2))


def pair_likelihood(dcc: DCC, residuals: Float64[Tensor, "T N"]) -> float:
    """Mean over pairs and sessions of the bivariate normal log densities beyond those of independence."""
    N = residuals.shape[1]
    rows, columns = torch.tril_indices(N, N, offset=-1)
    rho = dcc.path(residuals)[:-1, rows, columns]
    x, y = residuals[:, rows], residuals[:, columns]
    rest = 1 - rho * rho
    value = -0.5 * torch.log(rest) - 0.5 * (rho * rho * (x * x + y * y) - 2 * rho * x * y) / rest
    return float(value.nanmean())


def _weights(x: np.ndarray) -> tuple[float, float]:
    """A and b of unbounded numbers: of a's share of a + b, and of a + b."""
    share, whole = 1 / (1 + np.exp(-x))
    return float(share * whole), float((1 - share) * whole)


def _free(a: float, b: float) -> np.ndarray:
    share, whole = a / (a + b), a + b
    return np.log([share / (1 - share), whole / (1 - whole)])


def _power(R: Float64[Tensor, "... N N"], power: float) -> Float64[Tensor, "... N N"]:
    values, vectors = torch.linalg.eigh(R)
    return (vectors * values.clamp(min=1e-10).pow(power).unsqueeze(-2)) @ vectors.mT
