"""A head that forecasts the dependence of a cross-section of any shape, by attention over assets in an order."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from qtorch.distributions import AttentionalCopula
from qtorch.distributions.checks import require
from qtorch.distributions.transforms import RationalQuadratic
from qtorch.errors import ArgumentError
from qtorch.nn.cross_conditioner import CrossConditioner
from qtorch.nn.ordered_conditioner import OrderedConditioner
from qtorch.nn.ranks import fixed_score, order_of


class AttentionalCopulaHead(nn.Module):
    """Maps each asset's hidden state to a non-parametric copula of all assets: densities of one given those before it.

    An asset asks, by its own state, the states and uniforms of the assets before it in an order; what it finds are the
    parameters of the spline that is its conditional distribution function. See `qtorch.distributions.AttentionalCopula`
    for the law, and for what is exact in it. What assets that come later are like is known to an asset as far as its
    state, from an encoder of the whole cross-section, says.

    In training the order is random, from torch's generator or one that is given, so that the law of any order is
    learned. In evaluation it is by a fixed function of each asset's state, so that permuting assets permutes the law;
    assets of equal states come by number. A fresh head says independence.

    The law evaluates the network: what can be exported is that `log_prob`, or the tensors of `parameters_of`. It joins
    marginals in a `JointHead`.

    Train the marginals first and freeze them, then maximise this law's log density of their probability transforms:
    trained at once with them, the two may err together, and the law is no copula (Ashok et al.). As it starts from
    independence, its first hundred steps go into what a `CopulaHead` starts with: a rate that rises first and then
    falls, over several hundred steps, takes it past a t copula where dependence is not one.

    Args:
        in_features: hidden width `D`.
        width: of the network.
        heads: attention heads, which divide the width.
        depth: blocks of attention.
        bins: of the splines.

    Raises:
        ValueError: there are fewer than two bins, there is no block, or the heads do not divide the width.

    References:
        Drouin, Marcotte and Chapados (2022), TACTiS: Transformer-attentional copulas for time series, ICML; Ashok,
        Marcotte, Zantedeschi, Chapados and Drouin (2024), TACTiS-2, ICLR.

    Example:
        >>> head, hidden = AttentionalCopulaHead(8), torch.randn(5, 8)
        >>> copula = head.eval()(hidden, torch.tensor([True, True, False, True, True]))
        >>> bool(copula.log_prob(torch.tensor([0.1, 0.2, torch.nan, 0.7, 0.4])).abs() < 1e-5)  # independence
        True
        >>> copula.sample((100,)).shape
        torch.Size([100, 5])
    """

    names: ClassVar[tuple[str, ...]] = ("ask", "tell", "score", "there")

    def __init__(self, in_features: int, width: int = 32, heads: int = 4, depth: int = 2, bins: int = 8) -> None:
        super().__init__()
        require(bins >= 2, "bins", bins, "give at least 2")
        self.in_features, self.width, self.heads, self.depth, self.bins = in_features, width, heads, depth, bins
        self.network = CrossConditioner(in_features, width, heads, depth, RationalQuadratic.size(bins))

    def parameters_of(
        self,
        hidden: Float[Tensor, "*batch N D"],
        mask: Bool[Tensor, "*batch N"] | None = None,
        order: Int64[Tensor, "*any N"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[
        Float[Tensor, "*batch N W"], Float[Tensor, "*batch N W"], Float[Tensor, "*batch N"], Bool[Tensor, "*batch N"]
    ]:
        """Tensors of what each asset asks and tells, of scores by which they are ordered, and of who is there.

        Args:
            hidden: of each asset; where masked it doesn't matter.
            mask: which assets are there, all by default.
            order: which asset comes i-th, a permutation `[N]` or one of each row; by default as the class says.
            generator: of random orders, torch's own by default.

        Raises:
            ValueError: an order is not a permutation.
        """
        there = torch.ones_like(hidden[..., 0], dtype=torch.bool) if mask is None else mask
        hidden = torch.where(there.unsqueeze(-1), hidden, 0.0)
        if order is not None:
            _require_permutation(order, hidden.shape[-2])
            score = torch.argsort(order, dim=-1).float().expand(there.shape)
        elif self.training:
            score = torch.rand(there.shape, device=hidden.device, generator=generator)
        else:
            score = fixed_score(hidden, 0)
        return *self.network.contexts(hidden), score, there

    def distribution(
        self,
        ask: Float[Tensor, "*batch N W"],
        tell: Float[Tensor, "*batch N W"],
        score: Float[Tensor, "*batch N"],
        mask: Bool[Tensor, "*batch N"],
    ) -> AttentionalCopula:
        """The copula of parameters as `parameters_of` gives them, batch shape `[*batch]`."""
        return AttentionalCopula(self._conditioner, order_of(score, mask), mask, (ask, tell))

    def dated(
        self, parameters: Sequence[Tensor], newest: Int64[Tensor, " D"], there: Bool[Tensor, "D H N"]
    ) -> tuple[Tensor, ...]:
        """Parameters `[D, H, N, ...]` of assets that come from rows of their own, as those of one row: who is there."""
        ask, tell, score, _ = parameters
        return ask, tell, score, there

    def forward(
        self,
        hidden: Float[Tensor, "*batch N D"],
        mask: Bool[Tensor, "*batch N"] | None = None,
        order: Int64[Tensor, "*any N"] | None = None,
        generator: torch.Generator | None = None,
    ) -> AttentionalCopula:
        """The copula of the assets, batch shape `[*batch]`; arguments as of `parameters_of`."""
        return self.distribution(*self.parameters_of(hidden, mask, order, generator))

    def _conditioner(self, ask: Tensor, tell: Tensor, there: Tensor) -> OrderedConditioner:
        return OrderedConditioner(self.network, ask, tell, there)


def _require_permutation(order: Tensor, N: int) -> None:
    if order.shape[-1:] != (N,):
        raise ArgumentError(f"order of shape {tuple(order.shape)} must end in the N = {N} assets.")
    if torch.compiler.is_compiling():
        return
    if not torch.equal(order.sort(-1).values, torch.arange(N, device=order.device).expand(order.shape)):
        raise ArgumentError(f"order must hold each of 0 to {N - 1} once in every row.")
