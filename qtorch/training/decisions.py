"""What is known where weights are decided, and what the market did next."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from qtorch.data.panel import Panel
from qtorch.data.standing import known_gone
from qtorch.data.window import Window, WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.distributions.checks import require
from qtorch.models.market_state import MarketState
from qtorch.nn.graph import Graph, Tree
from qtorch.portfolio import numbered
from qtorch.portfolio.graphs import GraphBuilder, dendrogram, ewma_correlation, k_nearest

SHORTEST = 21  # rows: weights that halve faster are worth less than the 60 observations that a correlation needs


@dataclass(frozen=True, eq=False)
class Decisions:
    """What is known at R rows of a panel where weights are decided.

    Attributes:
        market: as the network is fed it. Its universe are the assets with enough history, not silent for too long, and
            with prices that move.
        tradable: those whose market is open on the row, with a price, and those known to be delisted, of which what is
            held is sold at the last price.
        groups: the number of each asset's label by the name of a partition, -1 for none.
        rows: of the panel.
        dates: of the rows.
        assets: of the columns.
    """

    market: MarketState
    tradable: Bool[Tensor, "R N"]
    groups: dict[str, Int64[Tensor, "R N"]]
    rows: Int64[Tensor, " R"]
    dates: pd.DatetimeIndex
    assets: tuple[str, ...]

    def __getitem__(self, at: Int64[Tensor, " Q"] | slice) -> "Decisions":
        """Those of some of the rows."""
        return Decisions(
            self.market[at],
            self.tradable[at],
            {name: labels[at] for name, labels in self.groups.items()},
            self.rows[at],
            self.dates[at if isinstance(at, slice) else at.cpu().numpy()],
            self.assets,
        )

    def __len__(self) -> int:
        """The number of rows R."""
        return len(self.rows)

    def to(self, device: torch.device | str) -> "Decisions":
        """The same on a device."""
        return Decisions(
            self.market.to(device),
            self.tradable.to(device),
            {name: labels.to(device) for name, labels in self.groups.items()},
            self.rows.to(device),
            self.dates,
            self.assets,
        )


class DecisionSource:
    """Decisions at rows of a panel; correlations and graphs are found once for all rows that were ever asked for.

    Args:
        panel: the market.
        spec: what an encoder sees of each asset.
        half_lives: of the estimates of correlations and volatilities, in rows.
        graphs: how graphs are made; by default each asset hears from the 10 that it is most correlated with, of weights
            that halve every 252 rows.
        groups: the label of each asset by the name of a partition, such as sectors; see `qtorch.portfolio.numbered`.
        min_history: returns that an asset needs to be in the universe.
        stale: it leaves the universe after this many sessions of its exchange without a price.
        trees: whether to make the dendrogram of each row's universe, by the slowest estimate of correlations.

    Raises:
        ValueError: there is no half-life, or one is below 21 rows, which no correlation can be estimated by.
        DataError: no asset has a return after its warm-up, or one has no label.
    """

    def __init__(
        self,
        panel: Panel,
        spec: WindowSpec,
        half_lives: Iterable[float] = (63.0, 252.0),
        graphs: GraphBuilder | None = None,
        groups: Mapping[str, Mapping[str, str | None]] | None = None,
        min_history: int = 250,
        stale: int = 5,
        trees: bool = False,
    ) -> None:
        self.panel, self.spec, self.trees = panel, spec, trees
        self._groups = numbered(groups or {}, panel.assets)
        self.graphs = default_graphs() if graphs is None else graphs
        self.half_lives = checked_half_lives(half_lives)
        self.min_history, self.stale = min_history, stale
        self._windows = WindowSource(panel, spec)
        self._estimates: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._graphs: dict[int, Graph] = {}
        self._merges: dict[int, Tensor] = {}  # of trees
        returns = panel.returns()
        self._there = returns.isfinite()
        self._tradable = torch.logical_or(panel.mask, known_gone(panel))
        self._returns = torch.where(self._there, returns, 0.0).float()

    def prepare(self, rows: Iterable[int]) -> None:
        """Estimates correlations at rows in one pass over the panel; those that were prepared before are kept."""
        new = np.array(sorted(set(map(int, rows)) - self._estimates.keys()), dtype=np.int64)
        if not len(new):
            return
        graph = self.graphs(self.panel, new)
        of_each = [ewma_correlation(self.panel, new, half_life=h, stale=self.stale) for h in self.half_lives]
        for k, row in enumerate(new.tolist()):
            self._graphs[row] = graph[k : k + 1]
            volatility = torch.stack([estimate.volatility[k] for estimate in of_each]).float()
            alive = torch.stack([estimate.mask[k] for estimate in of_each]).all(0)
            self._estimates[row] = (
                torch.stack([estimate.values[k] for estimate in of_each]).float(),
                volatility,
                torch.logical_and(alive, (volatility > 0).all(0)),  # a price that never moved says nothing of its risk
            )
        if self.trees:
            slowest = of_each[self.half_lives.index(max(self.half_lives))]
            merges = dendrogram(replace(slowest, mask=self._among(new)[1].to(slowest.mask.device))).merges
            self._merges |= dict(zip(new.tolist(), merges, strict=True))

    def universe(self, rows: Iterable[int]) -> Bool[Tensor, "R N"]:
        """The assets that weights may be given to at some rows, in any order."""
        asked = np.array([int(row) for row in rows], dtype=np.int64)
        self.prepare(asked.tolist())
        return self._among(asked)[1]

    def at(self, rows: Iterable[int]) -> Decisions:
        """What is known at some rows, in any order."""
        asked = np.array([int(row) for row in rows], dtype=np.int64)
        self.prepare(asked.tolist())
        entries, universe = self._among(asked)
        window: Window = self._windows.gather(entries.flatten())
        correlation, volatility, _ = (
            torch.stack(part) for part in zip(*(self._estimates[row] for row in asked.tolist()), strict=True)
        )
        both = torch.logical_and(universe.unsqueeze(-1), universe.unsqueeze(-2)).unsqueeze(1)
        known = torch.where(torch.logical_and(both, correlation.isfinite()), correlation, 0.0)
        eye = torch.eye(known.shape[-1], dtype=torch.bool, device=known.device)
        at = torch.as_tensor(asked, device=self._returns.device)
        R, N = universe.shape
        tree = None
        if self.trees:
            tree = Tree(torch.stack([self._merges[row] for row in asked.tolist()]), universe)
        market = MarketState(
            window.inputs.unflatten(0, (R, N)),
            window.mask.unflatten(0, (R, N)),
            universe,
            torch.where(eye, 1.0, known),
            torch.where(universe.unsqueeze(1), volatility, 1.0),
            _together([self._graphs[row] for row in asked.tolist()], universe),
            tree,
        )
        return Decisions(
            market,
            self._tradable[at],
            {name: labels.to(universe.device).expand(R, N) for name, labels in self._groups.items()},
            at,
            self.panel.dates[asked],
            tuple(self.panel.assets),
        )

    def _among(self, asked: np.ndarray) -> tuple[Tensor, Tensor]:
        """The windows' entries at some prepared rows, and who has one, with all estimates."""
        entries, valid = self._windows.at(asked, self.min_history, self.stale)
        alive = torch.stack([self._estimates[row][2] for row in asked.tolist()])
        return entries, torch.logical_and(valid, alive)

    def outcomes(
        self, rows: Int64[Tensor, " R"], sessions: int
    ) -> tuple[Float32[Tensor, "R S N"], Bool[Tensor, "R S N"]]:
        """Simple returns on the S rows of the panel after each row, 0 where there are none, and where there are."""
        at = rows.unsqueeze(-1) + torch.arange(1, sessions + 1, device=rows.device)
        return self._returns[at], self._there[at]


def checked_half_lives(half_lives: Iterable[float]) -> list[float]:
    """Half-lives of estimates, in rows.

    Raises:
        ValueError: there is none, or one is too short.
    """
    checked = [float(half_life) for half_life in half_lives]
    require(bool(checked), "half_lives", checked, "give at least one")
    for half_life in checked:
        require(SHORTEST <= half_life < math.inf, "half_lives", checked, f"give {SHORTEST} rows or more")
    return checked


def default_graphs() -> GraphBuilder:
    """Each asset hears from the 10 that it is most correlated with, of weights that halve every 252 rows."""
    return GraphBuilder(partial(ewma_correlation, half_life=252.0), partial(k_nearest, k=10))


def _together(graphs: list[Graph], universe: Bool[Tensor, "R N"]) -> Graph:
    """Graphs of one date each as a batch, of the universe alone."""
    most = max(graph.neighbours.shape[-1] for graph in graphs)

    def padded(name: str) -> Tensor | None:
        parts = [getattr(graph, name) for graph in graphs]
        if parts[0] is None:
            return None
        return torch.cat([torch.nn.functional.pad(part, (0, most - part.shape[-1])) for part in parts])

    neighbours, present = padded("neighbours"), padded("present")
    assert neighbours is not None
    assert present is not None
    return Graph(neighbours, present, universe, padded("weights"), padded("kinds"))
