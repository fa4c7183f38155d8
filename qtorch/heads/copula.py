"""A head that forecasts the dependence of a cross-section."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from qtorch.distributions import StudentTCopula
from qtorch.distributions.checks import require

_FARTHEST = 4.0  # of an asset's loadings before they are scaled: factors explain 94 % of it at most


class CopulaHead(nn.Module):
    """Maps each asset's hidden state to its loadings in a Student-t copula of all assets.

    L = A / sqrt(1 + |A|^2) with A linear in an asset's own state and bounded in length, df from the mean state of the
    assets that are there: permuting assets permutes the copula, their number may vary, and an asset that training never
    saw has the loadings of its state. A state may be an encoder's, or features or an embedding of the asset. Loadings
    are at most 0.97 long and df is between 2.1 and 60, whatever the state. A fresh head has one factor that explains
    nearly 0.4 of every asset, others next to nothing, and 8 degrees of freedom.

    Args:
        in_features: hidden width `D`.
        factors: R.

    Raises:
        ValueError: there is no factor.
    """

    names: ClassVar[tuple[str, ...]] = ("df", "loadings")

    def __init__(self, in_features: int, factors: int) -> None:
        super().__init__()
        require(factors >= 1, "factors", factors, "give at least 1")
        self.in_features, self.factors = in_features, factors
        self.project = nn.Linear(in_features, factors)
        self.tails = nn.Linear(in_features, 1)
        # Not zero: the copula is the same for L and -L, so that at zero there is no gradient.
        nn.init.normal_(self.project.weight, std=0.02 / in_features**0.5)
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.tails.weight)
        with torch.no_grad():
            self.project.bias[0] = 0.8
            self.tails.bias.fill_(-2.18)

    def parameters_of(
        self, hidden: Float[Tensor, "*batch N D"], mask: Bool[Tensor, "*batch N"] | None = None
    ) -> tuple[Float[Tensor, "*batch N"], Float[Tensor, "*batch N R"]]:
        """Tensors of df, the same for all assets, and of loadings.

        Args:
            hidden: of each asset; where masked it doesn't matter.
            mask: which assets are there, all by default.
        """
        there = torch.ones_like(hidden[..., 0], dtype=torch.bool) if mask is None else mask
        hidden = torch.where(there.unsqueeze(-1), hidden, 0.0)
        A = self.project(hidden).float()
        length = torch.sqrt((A * A).sum(-1, keepdim=True) + 1e-12)
        A = A * (_FARTHEST * torch.tanh(length / _FARTHEST) / length)
        loadings = A / torch.sqrt(1 + (A * A).sum(-1, keepdim=True))
        mean = hidden.sum(-2) / there.sum(-1, keepdim=True).clamp(min=1)
        df = 2.1 + 57.9 * torch.sigmoid(self.tails(mean).float())
        return df.expand(there.shape), loadings

    def distribution(self, df: Float[Tensor, "*batch N"], loadings: Float[Tensor, "*batch N R"]) -> StudentTCopula:
        """The copula of parameters as `parameters_of` gives them, batch shape `[*batch]`; df is the first asset's."""
        return StudentTCopula(df[..., 0], loadings)

    def dated(
        self, parameters: Sequence[Tensor], newest: Int64[Tensor, " D"], there: Bool[Tensor, "D H N"]
    ) -> tuple[Tensor, ...]:
        """Parameters `[D, H, N, ...]` of assets that come from rows of their own, as those of one row.

        The df is that of the asset whose row is the newest, which knows most of the market.
        """
        df, loadings = parameters
        return df.gather(-1, newest[:, None, None].expand(df.shape)), loadings

    def forward(
        self, hidden: Float[Tensor, "*batch N D"], mask: Bool[Tensor, "*batch N"] | None = None
    ) -> StudentTCopula:
        """The copula of the assets, batch shape `[*batch]`."""
        return self.distribution(*self.parameters_of(hidden, mask))
