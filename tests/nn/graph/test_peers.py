"""Given the same weights, layers agree with PyTorch Geometric's."""

import pytest
import torch
from torch import Tensor, nn

from qtorch.nn.graph import GCN, GATv2, Graph, GraphSAGE, GraphTransformer, RelationalGCN, from_pyg, to_pyg

peers = pytest.importorskip("torch_geometric.nn")
B, N, F, D = 3, 12, 5, 8


def make_graph() -> Graph:
    adjacency = torch.where(torch.rand(B, N, N) < 0.3, torch.rand(B, N, N, dtype=torch.float64) + 0.1, torch.nan)
    adjacency[:, 2] = torch.nan  # hears nobody, itself included
    mask = torch.rand(B, N) < 0.8
    return Graph.from_dense(adjacency, mask, torch.randint(0, 3, (B, N, N)))


def gcn(peer: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    return GCN(F, D), {"linear.weight": peer.lin.weight, "bias": peer.bias}


def sage(peer: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    named = {
        "neighbours.weight": peer.lin_l.weight,
        "neighbours.bias": peer.lin_l.bias,
        "own.weight": peer.lin_r.weight,
    }
    return GraphSAGE(F, D, pool=peer.aggr), named


def gatv2(peer: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    named = {"attention": peer.att[0], "bias": peer.bias}
    for ours, theirs in (("source", peer.lin_l), ("target", peer.lin_r)):
        named |= {f"{ours}.weight": theirs.weight, f"{ours}.bias": theirs.bias}
    if peer.lin_edge is None:
        return GATv2(F, D, heads=2, self_loops=peer.add_self_loops), named
    return GATv2(F, D, heads=2, weighted=True, kinds=3), named | {"edge.weight": peer.lin_edge.weight}


def relational(peer: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    named = {"matrices": peer.weight, "own.weight": peer.root.T, "own.bias": peer.bias}
    if peer.num_bases:
        named["mixture"] = peer.comp
    return RelationalGCN(F, D, kinds=3, bases=peer.num_bases), named


def transformer(peer: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    pairs = {"query": peer.lin_query, "key": peer.lin_key, "value": peer.lin_value, "own": peer.lin_skip}
    named = {f"{name}.{part}": getattr(layer, part) for name, layer in pairs.items() for part in ("weight", "bias")}
    return GraphTransformer(F, D, heads=2), named


def no_edges(graph: Graph, edges: Tensor, weights: Tensor, kinds: Tensor) -> tuple[Graph, tuple[Tensor, ...]]:
    return Graph(graph.neighbours, graph.present, graph.mask), ()


def with_weights(graph, edges, weights, kinds):
    return graph, (weights,)


def with_kinds(graph, edges, weights, kinds):
    return graph, (kinds,)


def with_features(graph, edges, weights, kinds):
    return graph, (torch.cat([weights[:, None], nn.functional.one_hot(kinds, 3).to(weights)], -1),)


CASES = {
    "gcn": (lambda: peers.GCNConv(F, D), gcn, no_edges),
    "gcn_weights": (lambda: peers.GCNConv(F, D), gcn, with_weights),
    "sage_mean": (lambda: peers.SAGEConv(F, D), sage, no_edges),
    "sage_max": (lambda: peers.SAGEConv(F, D, aggr="max"), sage, no_edges),
    "gatv2": (lambda: peers.GATv2Conv(F, D // 2, heads=2), gatv2, no_edges),
    "gatv2_without_loops": (lambda: peers.GATv2Conv(F, D // 2, heads=2, add_self_loops=False), gatv2, no_edges),
    "gatv2_edges": (lambda: peers.GATv2Conv(F, D // 2, heads=2, edge_dim=4), gatv2, with_features),
    "relational": (lambda: peers.RGCNConv(F, D, 3), relational, with_kinds),
    "relational_bases": (lambda: peers.RGCNConv(F, D, 3, num_bases=2), relational, with_kinds),
    "transformer": (lambda: peers.TransformerConv(F, D // 2, heads=2), transformer, no_edges),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", CASES)
def test_layers_give_what_peers_give(name, dtype, tolerance):
    if name == "relational_bases" or name == "relational":
        torch.set_default_dtype(dtype)  # theirs sums in the default type
    try:
        compare(*CASES[name], dtype, tolerance)
    finally:
        torch.set_default_dtype(torch.float32)


def compare(make, translate, tell, dtype: torch.dtype, tolerance: float) -> None:
    peer, graph = make().to(dtype), make_graph()
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.5)
    ours, named = translate(peer)
    ours.to(dtype).load_state_dict(named)
    edges, weights, kinds = graph.to_edges()
    graph, more = tell(graph, edges, weights.to(dtype), kinds)
    x = torch.randn(B, N, F, dtype=dtype, requires_grad=True)
    theirs = peer(x.flatten(0, 1), edges, *more).view(B, N, D)
    theirs, got = theirs[graph.mask], ours(x, graph)[graph.mask]
    torch.testing.assert_close(got, theirs, rtol=tolerance, atol=tolerance)
    one, other = (torch.autograd.grad(y.sin().sum(), x)[0] for y in (got, theirs))
    torch.testing.assert_close(one[graph.mask], other[graph.mask], rtol=10 * tolerance, atol=10 * tolerance)


def test_graphs_go_to_pyg_and_back():
    graph, x = make_graph(), torch.randn(B, N, F)
    batch = to_pyg(graph, x)
    edges, weights, kinds = graph.to_edges()
    assert torch.equal(batch.edge_index, edges)
    assert torch.equal(batch.edge_weight, weights)
    assert torch.equal(batch.edge_type, kinds)
    again, features = from_pyg(batch)
    assert torch.equal(features, x)
    assert torch.equal(again.mask, graph.mask)
    for one, other in zip(again.to_dense(), graph.to_dense(), strict=True):
        assert torch.equal(one, other)


def test_graphs_of_fewer_nodes_are_filled_up_with_dead_ones():
    from torch_geometric.data import Batch, Data

    small = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]), edge_attr=torch.tensor([[0.5]]))
    large = Data(x=torch.full((3, 1), 2.0), edge_index=torch.tensor([[2, 1], [0, 0]]), edge_attr=torch.ones(2, 1))
    graph, x = from_pyg(Batch.from_data_list([small, large]))
    assert graph.mask.tolist() == [[True, True, False], [True, True, True]]
    assert x.squeeze(-1).tolist() == [[1, 1, 0], [2, 2, 2]]
    assert graph.to_edges()[0].tolist() == [[0, 5, 4], [1, 3, 3]]
    assert from_pyg(small)[0].to_dense()[1].tolist() == [[[0, 0], [0.5, 0]]]
