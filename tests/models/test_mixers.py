"""Mixers of assets' states: who is missing is not heard, order does not matter, and what is saved is the same."""

import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from qtorch.models import (
    AssetGraph,
    GraphCovariance,
    GraphScores,
    MarketState,
    OverGraph,
    OverLearnedGraph,
    OverTree,
    Recurrent,
)
from qtorch.nn import build, describe
from qtorch.nn.graph import GCN, GATv2, Graph, GraphSAGE, GraphTransformer, RelationalGCN, Tree, TreeLSTM
from qtorch.portfolio import Constraints, MinimumVariance, Projected
from qtorch.portfolio.graphs import LearnedGraph

R, N, D = 3, 6, 8
MIXERS = {
    "default": lambda: None,
    "alone": lambda: (),
    "gatv2": lambda: [OverGraph(GATv2(D, 12, heads=2, weighted=True, kinds=2))],
    "sage": lambda: [OverGraph(GraphSAGE(D, D, pool="max"))],
    "gcn": lambda: [OverGraph(GCN(D, D))],
    "relational": lambda: [OverGraph(RelationalGCN(D, D, kinds=2))],
    "transformer": lambda: [OverGraph(GraphTransformer(D, D, heads=2, kinds=2, self_loops=True))],
    "tree": lambda: [OverTree(TreeLSTM(D, 5))],
    "learned": lambda: [OverLearnedGraph(LearnedGraph(D, k=3, width=4), GATv2(D, D, weighted=True))],
    "several": lambda: [
        OverTree(TreeLSTM(D, 4)),
        OverGraph(GCN(D, D)),
        OverLearnedGraph(LearnedGraph(D, k=2, width=4), GATv2(D, 4, heads=1, weighted=True)),
    ],
}
each = pytest.mark.parametrize("name", MIXERS)


def states(name: str) -> AssetGraph:
    torch.manual_seed(0)
    return stirred(AssetGraph(Recurrent(4, width=4, dropout=0.0), estimates=2, width=D, mixers=MIXERS[name]()))


def stirred(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return net.eval()


def state(seed: int = 1) -> MarketState:
    """Asset 2 is missing on all rows, asset 5 on the first."""
    draw = torch.Generator().manual_seed(seed)
    universe = torch.ones(R, N, dtype=torch.bool)
    universe[:, 2] = universe[0, 5] = False
    both = universe.unsqueeze(1) & universe.unsqueeze(2)
    correlation = torch.where(both, torch.full((R, N, N), 0.3), 0.0)
    correlation.diagonal(dim1=1, dim2=2).fill_(1.0)
    kinds = torch.randint(2, (R, N, N), generator=draw)
    graph = Graph.from_dense(torch.rand(R, N, N, generator=draw), universe, kinds)
    merges = torch.tensor([[0, 1], [3, 4], [6, 7], [8, 5], [9, 2]]).expand(R, -1, -1)
    return MarketState(
        torch.randn(R, N, 5, 4, generator=draw),
        torch.ones(R, N, 5, dtype=torch.bool),
        universe,
        correlation.unsqueeze(1).expand(R, 2, N, N).clone(),
        torch.where(universe, 0.01 + 0.02 * torch.rand(R, N, generator=draw), 1.0).unsqueeze(1).repeat(1, 2, 1),
        graph,
        Tree(merges, universe),
    )


@each
def test_who_is_missing_has_no_weight_sends_nothing_and_learns_nothing(name):
    market = state()
    out = ~market.universe
    for network, layer in (
        (stirred(GraphScores(states(name))), Projected(Constraints(upper=0.6))),
        (stirred(GraphCovariance(states(name))), MinimumVariance(upper=0.6)),
    ):
        plain = layer(network(market), market.universe)
        inputs = torch.where(out[..., None, None], torch.nan, market.inputs).requires_grad_()
        weights = layer(network(replace(market, inputs=inputs)), market.universe)
        assert torch.equal(weights, plain)
        assert (weights[out] == 0).all()
        network(replace(market, inputs=inputs)).square().sum().backward()
        assert (inputs.grad[out] == 0).all()
        assert inputs.grad[~out].isfinite().all()
        assert inputs.grad[~out].any()
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@each
def test_the_order_of_the_assets_does_not_matter(name):
    market, order = state(), torch.tensor([3, 0, 5, 2, 1, 4])
    there, weights = market.graph.to_dense()
    _, kinds = replace(market.graph, weights=market.graph.kinds.float()).to_dense()
    place = torch.cat([order.argsort(), torch.arange(N, 2 * N - 1)])
    universe = market.universe[:, order]

    def turned(matrices: torch.Tensor) -> torch.Tensor:
        return matrices[..., order, :][..., order]

    again = MarketState(
        market.inputs[:, order],
        market.mask[:, order],
        universe,
        turned(market.correlation),
        market.volatility[..., order],
        Graph.from_dense(turned(torch.where(there, weights, 0.0)), universe, turned(kinds).long()),
        Tree(place[market.tree.merges], universe),
    )
    net = states(name)
    torch.testing.assert_close(net(again), net(market)[:, order], atol=1e-5, rtol=1e-4)


@each
def test_rows_stand_for_themselves(name):
    market, net = state(), states(name)
    at = torch.tensor([2, 0])
    torch.testing.assert_close(net(market[at]), net(market)[at])
    torch.testing.assert_close(net(market[1:]), net(market)[1:])
    assert len(market[1:]) == 2
    assert {f.name for f in fields(market) if getattr(market.to("cpu"), f.name) is None} == set()


@each
def test_what_is_saved_is_the_same_network(name):
    net, market = GraphScores(states(name)), state()
    again = build(describe(net))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(market), net(market))


@pytest.mark.parametrize("name", sorted(MIXERS.keys() - {"alone", "default"}))
def test_others_are_heard(name):
    market, net = state(), states(name)
    changed = market.inputs.clone()
    changed[1, 0] += 1.0
    moved = (net(replace(market, inputs=changed)) - net(market)).abs().sum(-1) > 1e-6
    assert moved[1, 0]
    assert moved[1, 1:].any()
    assert not moved[[0, 2]].any()


@pytest.mark.slow
def test_it_compiles_whole():
    """In a process of its own, as compiled code can't contain the run-time check of annotations."""
    code = "import tests.models.test_mixers as t; t.compare_compiled()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def compare_compiled() -> None:
    net = stirred(GraphScores(states("several")))
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(state()), net(state()))


def test_half_precision_is_near():
    net, market = states("several"), state()
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(market)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, net(market), atol=0.1, rtol=0.1)


def test_it_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"mixers\[0\]\.in_features"):
        AssetGraph(Recurrent(4, width=4), width=8, mixers=[OverGraph(GCN(7, 8))])
    with pytest.raises(ValueError, match=r"market\.tree"):
        states("tree")(replace(state(), tree=None))
    with pytest.raises(ValueError, match="width 4, but its layer takes 8"):
        OverLearnedGraph(LearnedGraph(4, k=2), GCN(8, 8))
