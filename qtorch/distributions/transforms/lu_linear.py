"""A linear map given by its triangular factors."""

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.transforms.bijection import Bijection, promoted, soft_clip

MAX_LOG_DIAGONAL = 5.0


class LULinear(Bijection):
    """y = L U x + b with L unit lower triangular and U upper triangular of positive diagonal.

    Args:
        factors: `[D, D]`, L below the diagonal, U above it, and on it the logs of U's diagonal, clipped softly to +-5.
        bias: b `[D]`.

    References:
        Kingma and Dhariwal (2018), Glow, NeurIPS, section 3.2; Oliva et al. (2018), Transformation autoregressive
        networks, ICML.
    """

    event_dim = 1

    def __init__(self, factors: Float[Tensor, "D D"], bias: Float[Tensor, " D"]) -> None:
        super().__init__()
        factors, self.bias = promoted(factors), promoted(bias)
        log_diagonal = soft_clip(factors.diagonal(), MAX_LOG_DIAGONAL)
        self.lower = factors.tril(-1) + torch.eye(len(factors), dtype=factors.dtype, device=factors.device)
        self.upper = factors.triu(1) + torch.diag(torch.exp(log_diagonal))
        self.ladj = log_diagonal.sum()

    def call_and_ladj(self, x: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The value y(x) and log |det dy/dx|."""
        x = promoted(x)
        with torch.autocast(x.device.type, enabled=False):
            y = (x @ self.upper.mT) @ self.lower.mT + self.bias
        return y, self.ladj.expand(x.shape[:-1])

    def inv_and_ladj(self, y: Float[Tensor, "... D"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "..."]]:
        """The x with y(x) = y and log |det dx/dy|."""
        y = promoted(y)
        with torch.autocast(y.device.type, enabled=False):
            flat = (y - self.bias).reshape(-1, y.shape[-1]).mT
            half = torch.linalg.solve_triangular(self.lower, flat, upper=False, unitriangular=True)
            x = torch.linalg.solve_triangular(self.upper, half, upper=True).mT
        return x.reshape(y.shape), -self.ladj.expand(y.shape[:-1])
