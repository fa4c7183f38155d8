"""A head that forecasts the returns of a cross-section of any shape by a flow whose layers split the assets."""

import math
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.distributions import MaskedFlow, MultivariateStudentT
from qtorch.distributions.checks import require
from qtorch.distributions.transforms import Affine, Bijection, Composed, MaskedCoupling, RationalQuadratic
from qtorch.distributions.transforms.bijection import soft_clip
from qtorch.heads.copula import CopulaHead
from qtorch.nn.cross_conditioner import CrossConditioner, rows
from qtorch.nn.ranks import fixed_score, lower_half

_FARTHEST, _MOST = 5.0, math.log(8)  # of moves and of their log-scales


class CouplingFlowHead(nn.Module):
    """Maps each asset's hidden state to a joint law of all returns, in units of the window's scale.

    The base is a Student's t of all assets: location, scale and loadings on R factors from each asset's own state,
    degrees of freedom from their mean, as in `CopulaHead`. Layers of coupling bend it, where dependence is not that of
    a few factors: each splits the assets that are there in two halves, by the rank of a fixed function
    of their states, and moves one half by an affine map and a rational-quadratic spline of each asset, whose parameters
    an asset asks of the other half's states and values. Two layers after each other move the two halves of one split.
    An asset alone has the law of its own state.

    So permuting assets permutes the law, unless states are equal, which a split takes by number; any number of assets
    will do; density, inverse and draws take one pass. The law given a mask is a normalised density of the assets that
    are there. Laws of different masks do not agree by construction; train on the masks, or on random parts of them,
    that forecasts are to be made for. Marginals have no closed form: sample.

    Values reach networks as asinh(x), locations and log-scales of moves are bounded (by 5 and log 8), and splines are
    the identity beyond 5, so that every asset's tail index is that of the base, whose degrees of freedom are between
    2.1 and 60. A fresh head is its base alone: volatility 1, one factor that explains nearly 0.4 of every asset, others
    next to nothing, and 8 degrees of freedom.

    The law evaluates the network: what can be exported is that `log_prob`, or the tensors of `parameters_of`.

    Args:
        in_features: hidden width `D`.
        factors: R of the base.
        layers: of coupling.
        width: of the networks.
        heads: attention heads, which divide the width.
        depth: blocks of attention in a layer.
        bins: of the splines.

    Raises:
        ValueError: there are fewer than two layers or bins, there is no block, or the heads do not divide the width.

    References:
        Durkan, Bekasov, Murray and Papamakarios (2019), Neural spline flows, NeurIPS; for permuted sets Köhler, Klein
        and Noé (2020), Equivariant flows, ICML; for tails Jaini, Kobyzev, Yu and Brubaker (2020), Tails of Lipschitz
        triangular flows, ICML.

    Example:
        >>> head, hidden = CouplingFlowHead(8), torch.randn(5, 8)
        >>> law = head(hidden, torch.tensor([True, True, False, True, True]))
        >>> together, apart = torch.full((5,), -2.0), torch.tensor([-2.0, -2.0, torch.nan, 2.0, 2.0])
        >>> bool(law.log_prob(together) > law.log_prob(apart))
        True
        >>> law.sample((100,)).shape
        torch.Size([100, 5])
    """

    def __init__(
        self,
        in_features: int,
        factors: int = 2,
        layers: int = 4,
        width: int = 32,
        heads: int = 4,
        depth: int = 1,
        bins: int = 8,
    ) -> None:
        super().__init__()
        require(layers >= 2, "layers", layers, "give at least 2, one for each half")
        require(bins >= 2, "bins", bins, "give at least 2")
        self.in_features, self.factors, self.layers, self.width = in_features, factors, layers, width
        self.heads, self.depth, self.bins = heads, depth, bins
        self.dependence = CopulaHead(in_features, factors)
        self.own = nn.Linear(in_features, 2)
        nn.init.zeros_(self.own.weight)
        nn.init.zeros_(self.own.bias)
        size = Affine.count + RationalQuadratic.size(bins)
        self.networks = nn.ModuleList(CrossConditioner(in_features, width, heads, depth, size) for _ in range(layers))

    def parameters_of(
        self, hidden: Float[Tensor, "*batch N D"], mask: Bool[Tensor, "*batch N"] | None = None
    ) -> tuple[
        Float[Tensor, "*batch"],
        Float[Tensor, "*batch N"],
        Float[Tensor, "*batch N R"],
        Float[Tensor, "*batch N"],
        Float[Tensor, "*batch N L W"],
        Float[Tensor, "*batch N L W"],
        Float[Tensor, "*batch N S"],
        Bool[Tensor, "*batch N"],
    ]:
        """Tensors of the base; of what assets ask and tell in each layer; of scores that split them; of who is there.

        Args:
            hidden: of each asset; where masked it doesn't matter.
            mask: which assets are there, all by default.
        """
        there = torch.ones_like(hidden[..., 0], dtype=torch.bool) if mask is None else mask
        hidden = torch.where(there.unsqueeze(-1), hidden, 0.0)
        df, loadings = self.dependence.parameters_of(hidden, there)
        raw = self.own(hidden)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        volatility = torch.exp(soft_clip(raw[..., 0], _MOST))
        scale = volatility * torch.sqrt((df - 2) / df).unsqueeze(-1)
        loc = 0.5 * volatility * torch.tanh(raw[..., 1])
        contexts = [network.contexts(hidden) for network in self._networks()]
        ask, tell = (torch.stack(parts, dim=-2) for parts in zip(*contexts, strict=True))
        scores = torch.stack([fixed_score(hidden, which) for which in range((self.layers + 1) // 2)], dim=-1)
        return df, loc, scale.unsqueeze(-1) * loadings, scale, ask, tell, scores, there

    def distribution(
        self,
        df: Float[Tensor, "*batch"],
        loc: Float[Tensor, "*batch N"],
        factors: Float[Tensor, "*batch N R"],
        scale: Float[Tensor, "*batch N"],
        ask: Float[Tensor, "*batch N L W"],
        tell: Float[Tensor, "*batch N L W"],
        scores: Float[Tensor, "*batch N S"],
        mask: Bool[Tensor, "*batch N"],
    ) -> MaskedFlow:
        """The law of parameters as `parameters_of` gives them, batch shape `[*batch]`."""
        own = scale * scale - (factors * factors).sum(-1)

        def transform(there: Tensor) -> Bijection:
            parts = []
            for layer, network in enumerate(self._networks()):
                lower = lower_half(scores[..., layer // 2].expand(there.shape), there)
                moved = torch.logical_and(there, ~lower) if layer % 2 else lower
                kept = torch.logical_and(there, ~moved)
                conditioner = partial(_parameters, network, ask[..., layer, :], tell[..., layer, :], kept)
                parts.append(MaskedCoupling(conditioner, _moves, moved))
            return Composed(parts)

        return MaskedFlow(MultivariateStudentT(df, loc, factors, own, validate_args=False), transform, mask)

    def forward(self, hidden: Float[Tensor, "*batch N D"], mask: Bool[Tensor, "*batch N"] | None = None) -> MaskedFlow:
        """The joint law of standardised returns, batch shape `[*batch]`."""
        return self.distribution(*self.parameters_of(hidden, mask))

    def _networks(self) -> list[CrossConditioner]:
        return cast(list[CrossConditioner], list(self.networks))


def _parameters(
    network: CrossConditioner, ask: Tensor, tell: Tensor, kept: Tensor, x: Float[Tensor, "... N"]
) -> Float[Tensor, "P ... N"]:
    """Parameters of all assets from the values of those that are kept, the others being 0."""
    shape, seen = x.shape[:-1], rows(kept, x.shape[:-1], 1).unsqueeze(1)
    memories = network.memories(rows(tell, shape, 2), rows(x, shape, 1))
    found = network(rows(ask, shape, 2), memories, seen)
    return found.reshape(len(found), *x.shape)


def _moves(parameters: Float[Tensor, "P ... N"]) -> Sequence[Bijection]:
    loc, log_scale = soft_clip(parameters[0], _FARTHEST), soft_clip(parameters[1], _MOST)
    return Affine(torch.stack((loc, log_scale))), RationalQuadratic(parameters[2:])
