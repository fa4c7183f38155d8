"""Graphs that are learned with the model."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.distributions.transforms.bijection import promoted
from qtorch.errors import ArgumentError
from qtorch.nn.graph import Graph


class LearnedGraph(nn.Module):
    """A graph made of the assets' states: each hears from the k others that score highest, with weights in (0, 1).

    With `a_i = tanh(A h_i + u_i)` and `b_i = tanh(B h_i + v_i)` the score of the edge from j to i is
    `tanh(s (a_i . b_j - b_i . a_j) / sqrt(width))` and, if symmetric, the same with a plus; only scores above 0 are
    edges. So of two assets at most one hears the other, unless symmetric. Gradients flow through the weights of the
    edges that are there; which they are has none.

    Wu et al. learn a vector for each asset, u and v, and may add states. Here the states come first and vectors are
    optional, since an asset that is listed later has none.

    Args:
        in_features: D.
        k: neighbours.
        width: of the space in which they are sought.
        symmetric: a relation goes both ways, though each hears its own k highest only.
        saturation: s.
        assets: number of assets that get vectors of their own, as the columns of the states; None for none.

    Raises:
        ValueError: k, width or saturation is not positive; or the states are of another number of assets.

    References:
        Wu, Pan, Long, Jiang, Chang and Zhang (2020), Connecting the dots: multivariate time series forecasting with
        graph neural networks, KDD, equations 1 to 6.

    Example:
        >>> graph = LearnedGraph(in_features=8, k=3)(torch.randn(2, 6, 8), torch.ones(2, 6).bool())
        >>> graph.neighbours.shape
        torch.Size([2, 6, 3])
    """

    def __init__(
        self,
        in_features: int,
        k: int,
        width: int = 32,
        symmetric: bool = False,
        saturation: float = 3.0,
        assets: int | None = None,
    ) -> None:
        super().__init__()
        require(k >= 1, "k", k, "give 1 neighbour or more")
        require(width >= 1, "width", width, "give 1 or more, such as 32")
        require(saturation > 0, "saturation", saturation, "give a positive number, such as 3.0")
        self.in_features, self.k, self.width, self.symmetric = in_features, k, width, symmetric
        self.saturation, self.assets = saturation, assets
        self.project = nn.Linear(in_features, 2 * width)
        self.vectors = None if assets is None else nn.Parameter(torch.randn(assets, 2 * width))

    def forward(self, states: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]) -> Graph:
        """The graph of each date.

        Args:
            states: of the assets; those that are masked do not matter, NaN included.
            mask: which assets are alive.
        """
        N = states.shape[1]
        if self.assets not in (None, N):
            raise ArgumentError(
                f"this graph has vectors of {self.assets} assets, not {N}; assets=None takes any number."
            )
        places = self.project(torch.where(mask[..., None], states, 0.0))
        if self.vectors is not None:
            places = places + self.vectors
        with torch.autocast(states.device.type, enabled=False):
            one, other = promoted(places).tanh().chunk(2, -1)
            product = one @ other.mT
            product = product + product.mT if self.symmetric else product - product.mT
            score = (self.saturation * self.width**-0.5 * product).tanh()
        own = torch.eye(N, dtype=torch.bool, device=states.device)
        heard = torch.logical_and(mask[:, None, :], ~own)
        best, neighbours = torch.where(heard, score, -1.0).topk(min(self.k, N), dim=2)
        return Graph(neighbours, best > 0, mask, best)
