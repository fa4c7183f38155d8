from functools import partial
from itertools import combinations

import networkx
import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform

from qtorch.nn.graph import Graph, TreeLSTM, from_networkx, to_networkx
from qtorch.portfolio.graphs import (
    Correlations,
    dendrogram,
    k_nearest,
    minimum_spanning_tree,
    rolling_correlation,
    threshold,
    tmfg,
)

SPARSIFIERS = [
    partial(k_nearest, k=3),
    partial(k_nearest, k=30, mutual=True),
    partial(threshold, at=0.4),
    minimum_spanning_tree,
    tmfg,
]
ALL = pytest.mark.parametrize("sparsifier", SPARSIFIERS)


def made(N: int, mask: torch.Tensor | None = None, R: int = 2, seed: int = 0) -> Correlations:
    """Correlations of random factors."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((R, 3 * N, N)) + rng.standard_normal((R, 3 * N, 1)) * rng.random((R, 1, N))
    values = torch.tensor(np.stack([np.corrcoef(each.T) for each in x])).float()
    mask = torch.ones(R, N, dtype=torch.bool) if mask is None else mask
    values = torch.where(torch.logical_and(mask[:, :, None], mask[:, None, :]), values, torch.nan)
    return Correlations(np.arange(R), values, torch.full((R, N, N), 3.0 * N), mask, torch.ones(R, N), torch.ones(R))


def edges(graph: Graph, r: int = 0) -> set[tuple[int, int]]:
    there, _ = graph.to_dense()
    return {(i, j) for i, j in there[r].nonzero().tolist()}


@ALL
def test_edges_weigh_correlations_and_the_dead_have_none(sparsifier):
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, [0, 5, 11]] = False
    mask[1, 3:] = False
    given = made(12, mask)
    graph = sparsifier(given)
    assert torch.equal(graph.mask, mask)
    there, weights = graph.to_dense()
    torch.testing.assert_close(weights[there], given.values[there])
    assert not there[~mask].any()
    assert not there.mT[~mask].any()
    assert not there.diagonal(dim1=1, dim2=2).any()
    assert there[0].any()


@ALL
def test_edges_go_with_the_assets(sparsifier):
    given, order = made(14), torch.randperm(14)
    shuffled = Correlations(
        given.rows, given.values[:, order][:, :, order], given.counts, given.mask, given.volatility, given.storms
    )
    there, _ = sparsifier(given).to_dense()
    assert torch.equal(sparsifier(shuffled).to_dense()[0], there[:, order][:, :, order])


@ALL
def test_graphs_go_to_networkx_and_back(sparsifier):
    graph = sparsifier(made(9))
    back = from_networkx(to_networkx(graph), range(9))
    for one, other in zip(graph.to_dense(), back.to_dense(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("mutual", [False, True])
def test_the_nearest_are_those_of_a_sort(absolute, mutual):
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[:, 4] = False
    given = made(10, mask)
    graph = k_nearest(given, k=3, absolute=absolute, mutual=mutual)
    for r in range(2):
        values = given.values[r].abs() if absolute else given.values[r]
        alive = [i for i in range(10) if i != 4]
        near = {i: sorted((j for j in alive if j != i), key=lambda j, i=i: -values[i, j])[:3] for i in alive}
        assert edges(graph, r) == {(i, j) for i in alive for j in near[i] if not mutual or i in near[j]}


def test_above_a_threshold():
    given = made(10)
    assert edges(threshold(given, 0.2)) == {
        (i, j) for i in range(10) for j in range(10) if i != j and given.values[0, i, j] >= 0.2
    }
    assert edges(threshold(given, 1.0)) == set()
    strong = edges(threshold(given, 0.1, absolute=True))
    assert strong == {(i, j) for i in range(10) for j in range(10) if i != j and given.values[0, i, j].abs() >= 0.1}


def test_the_spanning_tree_is_networkxs():
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[:, 7] = False
    given = made(20, mask)
    graph = minimum_spanning_tree(given)
    for r in range(2):
        full = networkx.Graph()
        for i, j in combinations([n for n in range(20) if n != 7], 2):
            full.add_edge(i, j, weight=float(torch.sqrt(2 * (1 - given.values[r, i, j]))))
        want = networkx.minimum_spanning_tree(full).edges
        assert edges(graph, r) == {pair for i, j in want for pair in ((i, j), (j, i))}


def test_the_spanning_tree_holds_equal_assets_and_falls_apart_at_holes():
    given = made(4, R=1)
    given.values[0, 0, 1] = given.values[0, 1, 0] = 1.0
    given.values[0, 2, :2] = given.values[0, :2, 2] = torch.nan
    given.values[0, 3, :2] = given.values[0, :2, 3] = torch.nan
    assert edges(minimum_spanning_tree(given)) == {(0, 1), (1, 0), (2, 3), (3, 2)}


def greedy(strength: np.ndarray) -> set[frozenset[int]]:
    """The definition of a TMFG, with every gain made anew at every step."""
    N = len(strength)
    others = strength[~np.eye(N, dtype=bool)]
    sums = [sum(strength[i, j] for j in range(N) if j != i and strength[i, j] > others.mean()) for i in range(N)]
    clique = sorted(range(N), key=lambda i: -sums[i])[:4]
    found = {frozenset(pair) for pair in combinations(clique, 2)}
    triangles, left = [set(each) for each in combinations(clique, 3)], set(range(N)) - set(clique)
    while left:
        gains = {(v, t): sum(strength[v, u] for u in face) for t, face in enumerate(triangles) for v in left}
        v, t = max(gains, key=lambda key: gains[key])
        face = triangles.pop(t)
        found |= {frozenset((v, u)) for u in face}
        triangles += [{v, *pair} for pair in combinations(face, 2)]
        left.remove(v)
    return found


@pytest.mark.parametrize("N", [5, 6, 11, 25])
@pytest.mark.parametrize("absolute", [False, True])
def test_tmfg_is_the_greedy_planar_graph(N, absolute):
    given = made(N, R=2, seed=N)
    graph = tmfg(given, absolute=absolute)
    for r in range(2):
        values = given.values[r].double()
        want = greedy((values.abs() if absolute else values).numpy())
        assert {frozenset(pair) for pair in edges(graph, r)} == want
        plain = networkx.Graph(edges(graph, r))
        assert plain.number_of_edges() == 3 * (N - 2)
        assert networkx.check_planarity(plain)[0]
        assert networkx.is_chordal(plain)


@pytest.mark.parametrize("alive", [0, 1, 2, 3, 4])
def test_few_assets_are_joined_completely(alive):
    mask = torch.arange(6)[None] < alive
    assert edges(tmfg(made(6, mask, R=1))) == {(i, j) for i in range(alive) for j in range(alive) if i != j}
    assert len(edges(minimum_spanning_tree(made(6, mask, R=1)))) == 2 * max(alive - 1, 0)
    tree = dendrogram(made(6, mask, R=1))
    assert len(tree.levels) <= max(alive - 1, 0)
    _, leaves = TreeLSTM(3, 4)(torch.randn(1, 6, 3), tree)
    assert (leaves.abs().sum(-1) > 0).tolist() == mask.tolist()


@pytest.mark.parametrize("method", ["average", "ward", "single", "complete"])
def test_dendrograms_are_scipys(method):
    """The distances at which assets meet tell a tree."""
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, [0, 4]] = False
    given = made(9, mask)
    tree = dendrogram(given, method)
    for r in range(2):
        alive = mask[r].nonzero().flatten().tolist()
        distance = np.sqrt((1 - given.values[r][alive][:, alive].double().numpy()) / 2)
        np.fill_diagonal(distance, 0.0)
        want = linkage(squareform(distance, checks=False), method)
        order = squareform(cophenet(np.column_stack([want[:, :2], np.arange(1, len(want) + 1), want[:, 3]])))
        members = {n: {n} for n in range(9)}
        for m, (left, right) in enumerate(tree.merges[r].tolist()):
            members[9 + m] = members[left] | members[right]
            for i in members[left]:
                for j in members[right]:
                    if i in alive and j in alive:
                        assert order[alive.index(i), alive.index(j)] == m + 1


def test_dendrograms_of_a_panel_feed_a_tree_lstm(market_panel):
    found = rolling_correlation(market_panel, [200, 500])
    root, leaves = TreeLSTM(3, 4)(torch.randn(2, 13, 3), dendrogram(found))
    assert root.shape == (2, 4)
    assert (leaves[~found.mask] == 0).all()


def test_settings_out_of_bounds_are_refused():
    with pytest.raises(ValueError, match="k=0"):
        k_nearest(made(5), k=0)
    with pytest.raises(ValueError, match="at=2"):
        threshold(made(5), 2.0)
    with pytest.raises(ValueError, match="at=-0.5"):
        threshold(made(5), -0.5, absolute=True)
