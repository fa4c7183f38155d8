"""A head that forecasts the returns of a cross-section of any shape by a flow whose layers split the assets."""

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float, Int64
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
    """Maps each asset's hidden state to a joint law of all returns at every horizon, in units of the window's scale.

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

    A horizon of h sessions has volatilities and locations of its own, in units of sqrt(h), and what assets ask in the
    layers; its factors and degrees of freedom are those of all.

    Values reach networks as asinh(x), locations and log-scales of moves are bounded (by 5 and log 8), and splines are
    the identity beyond 5, so that every asset's tail index is that of the base, whose degrees of freedom are between
    2.1 and 60. A fresh head is its base alone: volatility 1, one factor that explains nearly 0.4 of every asset, others
    next to nothing, and 8 degrees of freedom.

    The law evaluates the network: what can be exported is that `log_prob`, or the tensors of `parameters_of`.

    Args:
        in_features: hidden width `D`.
        horizons: in sessions.
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
        >>> head, hidden = CouplingFlowHead(8, [1, 10]), torch.randn(5, 8)
        >>> law = head(hidden, torch.tensor([True, True, False, True, True]))
        >>> together, apart = torch.full((5,), -2.0), torch.tensor([-2.0, -2.0, torch.nan, 2.0, 2.0])
        >>> bool((law.log_prob(together) > law.log_prob(apart)).all())
        True
        >>> law.sample((100,)).shape
        torch.Size([100, 2, 5])
    """

    names: ClassVar[tuple[str, ...]] = ("df", "loc", "factors", "scale", "ask", "tell", "scores", "there")

    def __init__(
        self,
        in_features: int,
        horizons: Sequence[int],
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
        self.in_features, self.horizons = in_features, tuple(horizons)
        self.factors, self.layers, self.width = factors, layers, width
        self.heads, self.depth, self.bins = heads, depth, bins
        self.dependence = CopulaHead(in_features, factors)
        self.own = nn.Linear(in_features, 2 * len(self.horizons))
        nn.init.zeros_(self.own.weight)
        nn.init.zeros_(self.own.bias)
        size = Affine.count + RationalQuadratic.size(bins)
        self.networks = nn.ModuleList(CrossConditioner(in_features, width, heads, depth, size) for _ in range(layers))
        self.horizon = nn.Parameter(torch.zeros(len(self.horizons), layers, width))

    def parameters_of(
        self, hidden: Float[Tensor, "*batch N D"], mask: Bool[Tensor, "*batch N"] | None = None
    ) -> tuple[
        Float[Tensor, "*batch N H"],
        Float[Tensor, "*batch N H"],
        Float[Tensor, "*batch N H R"],
        Float[Tensor, "*batch N H"],
        Float[Tensor, "*batch N H LW"],
        Float[Tensor, "*batch N H LW"],
        Float[Tensor, "*batch N H S"],
        Bool[Tensor, "*batch N H"],
    ]:
        """Tensors of the base; of what assets ask and tell in each layer; of scores that split them; of who is there.

        Degrees of freedom are the same for all assets.

        Args:
            hidden: of each asset; where masked it doesn't matter.
            mask: which assets are there, all by default.
        """
        there = torch.ones_like(hidden[..., 0], dtype=torch.bool) if mask is None else mask
        hidden = torch.where(there.unsqueeze(-1), hidden, 0.0)
        df, loadings = self.dependence.parameters_of(hidden, there)
        raw = self.own(hidden)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        raw, H = raw.unflatten(-1, (len(self.horizons), 2)), len(self.horizons)
        volatility = torch.exp(soft_clip(raw[..., 0], _MOST))
        df = df.unsqueeze(-1).expand(volatility.shape)
        scale = volatility * torch.sqrt((df - 2) / df)
        loc = 0.5 * volatility * torch.tanh(raw[..., 1])
        contexts = [network.contexts(hidden) for network in self._networks()]
        ask, tell = (torch.stack(parts, dim=-2).unsqueeze(-3) for parts in zip(*contexts, strict=True))
        ask = (ask + self.horizon).flatten(-2)
        tell = tell.flatten(-2).expand(ask.shape)
        scores = torch.stack([fixed_score(hidden, which) for which in range((self.layers + 1) // 2)], dim=-1)
        scores = scores.unsqueeze(-2).expand(*scores.shape[:-1], H, -1)
        factors = scale.unsqueeze(-1) * loadings.unsqueeze(-2)
        return df, loc, factors, scale, ask, tell, scores, there.unsqueeze(-1).expand(df.shape)

    def distribution(
        self,
        df: Float[Tensor, "*batch H N"],
        loc: Float[Tensor, "*batch H N"],
        factors: Float[Tensor, "*batch H N R"],
        scale: Float[Tensor, "*batch H N"],
        ask: Float[Tensor, "*batch H N LW"],
        tell: Float[Tensor, "*batch H N LW"],
        scores: Float[Tensor, "*batch H N S"],
        mask: Bool[Tensor, "*batch H N"],
    ) -> MaskedFlow:
        """The law, batch shape `[*batch, H]`, of the parameters of `parameters_of` with the horizons before the assets.

        The degrees of freedom are those of the first asset.
        """
        own = scale * scale - (factors * factors).sum(-1)
        base = MultivariateStudentT(df[..., 0], loc, factors, own, validate_args=False)
        unit = torch.tensor([math.sqrt(h) for h in self.horizons], device=loc.device).unsqueeze(-1)
        return MaskedFlow(base, self._transform, mask, (ask, tell, scores), unit.expand(loc.shape))

    def dated(
        self, parameters: Sequence[Tensor], newest: Int64[Tensor, " D"], there: Bool[Tensor, "D H N"]
    ) -> tuple[Tensor, ...]:
        """Parameters `[D, H, N, ...]` of assets that come from rows of their own, as those of one row.

        The df is that of the asset whose row is the newest, which knows most of the market.
        """
        df, *own, _ = parameters
        return df.gather(-1, newest[:, None, None].expand(df.shape)), *own, there

    def forward(self, hidden: Float[Tensor, "*batch N D"], mask: Bool[Tensor, "*batch N"] | None = None) -> MaskedFlow:
        """The joint law of standardised returns, batch shape `[*batch, H]`."""
        axis = hidden.ndim - 1
        return self.distribution(*(p.movedim(axis, axis - 1) for p in self.parameters_of(hidden, mask)))

    def _transform(self, there: Tensor, ask: Tensor, tell: Tensor, scores: Tensor) -> Bijection:
        parts = []
        asks, tells = (part.unflatten(-1, (self.layers, self.width)) for part in (ask, tell))
        for layer, network in enumerate(self._networks()):
            lower = lower_half(scores[..., layer // 2].expand(there.shape), there)
            moved = torch.logical_and(there, ~lower) if layer % 2 else lower
            kept = torch.logical_and(there, ~moved)
            conditioner = partial(_parameters, network, asks[..., layer, :], tells[..., layer, :], kept)
            parts.append(MaskedCoupling(conditioner, _moves, moved))
        return Composed(parts)

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
