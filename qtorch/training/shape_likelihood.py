"""How well covariances fit the returns that followed, whatever their size."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class ShapeLikelihood:
    r"""Minus the log-likelihood of the directions of returns, a session and asset: of a covariance's shape alone.

    $\frac12 \log\det\Sigma + \frac n2 \log(r^T \Sigma^{-1} r / r^T r)$ over n: the density of $r / |r|$, which is the
    same for every elliptical law of covariance $\Sigma$, so that a storm, which makes all returns large, weighs no more
    than a calm day. Weights of least variance depend on the shape alone, and a session says far more of it by its n
    returns than by the one return of a portfolio: train a `GraphCovariance` by this, then, if at all, by
    `LeastVariance`.

    Sessions on which an asset of the universe has no return are left out.

    References:
        Tyler (1987), Statistical analysis for the angular central Gaussian distribution on the sphere, Biometrika 74,
        equation 1.
    """

    def __call__(
        self,
        covariance: Float[Tensor, "R N N"],
        universe: Bool[Tensor, "R N"],
        returns: Float[Tensor, "R S N"],
        there: Bool[Tensor, "R S N"],
    ) -> Float[Tensor, ""]:
        """The loss.

        Args:
            covariance: positive definite, the identity outside the universe.
            universe: the assets that count.
            returns: of the S sessions that followed.
            there: where there are returns.

        Raises:
            torch.linalg.LinAlgError: a matrix is not positive definite.
        """
        among = universe.unsqueeze(1)
        r = torch.where(torch.logical_and(among, there), returns, 0.0).double()
        whole = torch.logical_and(torch.logical_or(there, ~among).all(-1), (r != 0).any(-1))
        root = torch.linalg.cholesky(covariance.double())
        q = torch.linalg.solve_triangular(root, r.mT, upper=False).square().sum(-2)
        q = torch.where(whole, q / torch.where(whole, r.square().sum(-1), 1.0), 1.0)
        n = universe.sum(-1).clamp(min=1)
        half_log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) / n
        loss = half_log_det.unsqueeze(-1) + torch.log(q) / 2
        return torch.where(whole, loss, 0.0).sum() / whole.sum().clamp(min=1)
