import networkx
import pytest
import torch

from qtorch.nn.graph import Graph, from_networkx, to_networkx


def make_graph(B: int = 2, N: int = 6) -> Graph:
    adjacency = torch.where(torch.rand(B, N, N) < 0.4, torch.randn(B, N, N), 0.0)
    return Graph.from_dense(adjacency, torch.rand(B, N) < 0.8, torch.randint(0, 3, (B, N, N)))


def same(one: Graph, other: Graph) -> bool:
    """The same edges, in any order of places."""
    pairs = [*zip(one.to_dense(), other.to_dense(), strict=True), (one.mask, other.mask)]
    if one.kinds is not None:
        pairs.append((one.dense(one.kinds.float()), other.dense(other.kinds.float())))
    return all(torch.equal(*pair) for pair in pairs)


def test_matrices_lists_and_tables_hold_the_same_edges():
    mask = torch.tensor([[True, True, True, False], [True] * 4])
    adjacency = torch.randn(2, 4, 4)
    adjacency[0, 1, 2], adjacency[1, 0, 3] = 0.0, torch.nan
    graph = Graph.from_dense(adjacency, mask)
    there, weights = graph.to_dense()
    alive = mask[:, None] & mask[..., None]
    assert torch.equal(there, alive & (adjacency != 0) & ~adjacency.isnan())
    assert torch.equal(weights, torch.where(there, adjacency, 0.0))
    edges, weight, _ = graph.to_edges()
    shuffled = torch.randperm(edges.shape[1])
    assert same(Graph.from_edges(edges[:, shuffled], mask, weight[shuffled]), graph)


def test_networkx_and_back():
    graph = make_graph()
    names = list("abcdef")
    assert same(from_networkx(to_networkx(graph, names), names), graph)
    assert same(from_networkx(to_networkx(graph), range(6)), graph)
    ring = networkx.cycle_graph(4)
    there, weights = from_networkx([ring], range(5)).to_dense()
    assert there[0, :4, :4].sum() == 8
    assert torch.equal(there.mT, there)
    assert torch.equal(there.float(), weights)
    ring.edges[0, 1]["weight"] = 2.0
    with pytest.raises(ValueError, match="2 of 8 edges have a 'weight'"):
        from_networkx([ring], range(5))
    with pytest.raises(ValueError, match="graph 0 has the node 3, which is not among the names"):
        from_networkx([ring], range(3))


def test_what_is_not_there_is_cleared_and_stays_so():
    graph = Graph(
        torch.tensor([[[1, 99], [0, -5], [0, 1]]]),
        torch.tensor([[[True, False], [True, False], [True, True]]]),
        torch.tensor([[True, True, False]]),
        torch.tensor([[[0.5, torch.nan], [0.25, torch.inf], [torch.nan, 1.0]]]),
        torch.tensor([[[1, -9], [2, 7], [-1, 0]]]),
    )
    for moved in (graph, graph.to("cpu")):
        assert moved.neighbours.tolist() == [[[1, 0], [0, 1], [2, 2]]]
        assert moved.present.tolist() == [[[True, False], [True, False], [False, False]]]
        assert moved.weights.tolist() == [[[0.5, 0.0], [0.25, 0.0], [0.0, 0.0]]]
        assert moved.kinds.tolist() == [[[1, 0], [2, 0], [0, 0]]]
    assert graph.links is graph.links
    assert graph.to("cpu").links is not graph.links


def test_loops_come_first_once_and_keep_their_weights():
    adjacency = torch.tensor([[[2.0, 1.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    looped = Graph.from_dense(adjacency, torch.tensor([[True, True, False]])).looped
    assert looped.to_dense()[1].tolist() == [[[2.0, 1.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]
    assert looped.present[0, :, 0].tolist() == [True, True, False]
    assert looped.present.sum() == 4


def test_what_was_derived_without_gradients_is_not_used_where_there_are_some():
    weights = torch.rand(1, 2, 1).requires_grad_()
    graph = Graph(torch.tensor([[[1], [0]]]), torch.ones(1, 2, 1).bool(), torch.ones(1, 2).bool(), weights)
    with torch.no_grad():
        assert not graph.looped.weights.requires_grad
    assert graph.looped.weights.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neighbours": torch.tensor([[[1], [2]]])}, r"neighbours\[0, 1, 0\] is 2, but nodes are 0 to 1"),
        ({"weights": torch.tensor([[[0.1], [torch.nan]]])}, r"weights\[0, 1, 0\] is nan: the weight .* must be finite"),
        ({"kinds": torch.tensor([[[0], [-1]]])}, r"kinds\[0, 1, 0\] is -1: kinds count from 0"),
    ],
)
def test_faults_are_located(change, message):
    given = {"neighbours": torch.tensor([[[1], [0]]]), "present": torch.ones(1, 2, 1).bool()}
    with pytest.raises(ValueError, match=message):
        Graph(**(given | change), mask=torch.ones(1, 2).bool())


def test_edges_stay_within_a_date():
    mask = torch.ones(2, 3).bool()
    with pytest.raises(ValueError, match="edge 1 goes from node 2 to 3, which are of different dates"):
        Graph.from_edges(torch.tensor([[0, 2], [1, 3]]), mask)
    with pytest.raises(ValueError, match="must be from 0 to 5"):
        Graph.from_edges(torch.tensor([[6], [0]]), mask)
    assert not Graph.from_edges(torch.zeros(2, 0).long(), mask).present.any()
