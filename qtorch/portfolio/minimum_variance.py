"""Weights of least variance, given a covariance."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.portfolio.quadratic import minimise_quadratic
from qtorch.portfolio.quadratic_trades import minimise_with_trades
from qtorch.portfolio.universe import reachable, settle


class MinimumVariance(nn.Module):
    r"""The weights that have the least variance between bounds, not far from what is held.

    They minimise, with h the holdings,
    $w^T \Sigma w + \kappa\,(w - h)^T \mathrm{diag}(\Sigma)\,(w - h) + 2 \theta\, h^T \Sigma h \sum_i |w_i - h_i|$.

    The other terms make trades as dear as risk and hold turnover down: the second smoothly, the third by leaving alone
    what is nearly right. One asset is sold for another only where their covariances with the portfolio differ by more
    than $2 \theta$ of its variance; at the minimum those of all assets that are held are equal. The gradient in the
    covariance is exact, so that a network which makes it learns from what its portfolios earn.

    Args:
        budget: sum of the weights.
        lower: of each weight.
        upper: of each weight.
        inertia: kappa, at least 0; it needs holdings, and does nothing where there are none.
        reluctance: theta, at least 0; it needs holdings too.

    Raises:
        ValueError: bounds cross or are not finite, or the inertia or the reluctance is negative.

    References:
        Markowitz (1952), Portfolio selection, Journal of Finance 7.
        Butler and Kwon (2023), Integrating prediction in mean-variance portfolio optimization, Quantitative Finance 23,
        for learning through the solution.
        Davis and Norman (1990), Portfolio selection with transaction costs, Mathematics of Operations Research 15, for
        regions without trades.

    Example:
        >>> allocation = MinimumVariance(upper=0.7)
        >>> allocation(torch.tensor([[[1.0, 0.0], [0.0, 4.0]]]), torch.tensor([[True, True]]))
        tensor([[0.7000, 0.3000]])
    """

    def __init__(
        self,
        budget: float = 1.0,
        lower: float = 0.0,
        upper: float = 1.0,
        inertia: float = 0.0,
        reluctance: float = 0.0,
    ) -> None:
        super().__init__()
        require(
            -float("inf") < lower <= upper < float("inf"), "lower", lower, f"finite bounds up to {upper} are needed"
        )
        require(0 <= inertia < float("inf"), "inertia", inertia, "give a number of at least 0")
        require(0 <= reluctance < float("inf"), "reluctance", reluctance, "give a number of at least 0")
        self.budget, self.lower, self.upper = budget, lower, upper
        self.inertia, self.reluctance = inertia, reluctance

    def forward(
        self,
        covariance: Float[Tensor, "B N N"],
        mask: Bool[Tensor, "B N"],
        *,
        holdings: Float[Tensor, "B N"] | None = None,
        tradable: Bool[Tensor, "B N"] | None = None,
    ) -> Float[Tensor, "B N"]:
        """Weights.

        Args:
            covariance: positive definite on the assets of the universe; NaN elsewhere is fine.
            mask: the universe; the weight of other assets is 0 without gradient.
            holdings: today's weights, drifted with the prices.
            tradable: False where the weight stays that of the holdings, and the others are chosen around it; where
                that alone is beyond the budget, at their lower bounds, and where the budget is out of their reach
                because others are closed, at their upper bounds, the rest being cash.

        Raises:
            ValueError: no weights meet the constraints, or the covariance is not positive definite.
        """
        scores = torch.zeros_like(covariance[..., 0])
        _, free, place, held, closed = settle(scores, mask, holdings, tradable)
        both = mask.unsqueeze(-1) & mask.unsqueeze(-2)
        # Outside the universe the identity, which touches nothing: weights there are fixed at 0.
        sigma = torch.where(both, covariance, 0.0).double() + torch.diag_embed((~mask).double())
        linear = torch.zeros_like(place)
        known = torch.where(mask, held, 0.0)
        price = self.reluctance * torch.einsum("bi,bij,bj->b", known, sigma, known)
        if self.inertia and holdings is not None:
            kappa = self.inertia * torch.where(mask, sigma.diagonal(dim1=-2, dim2=-1), 0.0)
            sigma, linear = sigma + torch.diag_embed(kappa), -kappa * held
        lower = torch.where(free, self.lower, place)
        upper = torch.where(free, self.upper, place)
        budget = reachable(torch.full_like(place[:, 0], self.budget), lower, upper, place, closed, self.upper)
        if self.reluctance and holdings is not None:
            return minimise_with_trades(sigma, linear, lower, upper, budget, held, price).to(covariance.dtype)
        return minimise_quadratic(sigma, linear, lower, upper, budget).to(covariance.dtype)
