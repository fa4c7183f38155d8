import subprocess
import sys

import pytest
import torch
from torch import nn

from qtorch.nn import build, describe
from qtorch.nn.graph import GCN, GATv2, Graph, GraphSAGE, GraphTransformer, RelationalGCN

B, N, K, F, D = 3, 9, 4, 5, 8
LAYERS = {
    "gcn": lambda **more: GCN(F, D, **more),
    "gcn_without_loops": lambda **more: GCN(F, D, self_loops=False, **more),
    "sage": lambda **more: GraphSAGE(F, D, **more),
    "sage_with_loops": lambda **more: GraphSAGE(F, D, self_loops=True, **more),
    "sage_max": lambda: GraphSAGE(F, D, pool="max"),
    "relational": lambda **more: RelationalGCN(F, D, kinds=3, **more),
    "relational_bases": lambda **more: RelationalGCN(F, D, kinds=3, bases=2, **more),
    "gatv2": lambda: GATv2(F, D, heads=2),
    "gatv2_without_loops": lambda: GATv2(F, D, heads=2, self_loops=False),
    "gatv2_edges": lambda: GATv2(F, D, heads=4, weighted=True, kinds=3),
    "transformer": lambda **more: GraphTransformer(F, D, heads=2, **more),
    "transformer_edges": lambda **more: GraphTransformer(
        F, D, heads=4, weighted=True, kinds=3, self_loops=True, **more
    ),
}
EITHER = [name for name in LAYERS if name.split("_")[0] in ("gcn", "sage", "relational", "transformer")]
EITHER.remove("sage_max")
each_layer = pytest.mark.parametrize("name", LAYERS)


def make_graph(dtype: torch.dtype = torch.float64) -> Graph:
    """Padding, dead nodes, edges from a node to itself, several edges between two, and a node without neighbours."""
    neighbours = torch.randint(0, N, (B, N, K))
    present = torch.rand(B, N, K) < 0.8
    present[0, 0] = False
    mask = torch.rand(B, N) < 0.8
    mask[:, :2] = True
    mask[2, 3] = False
    weights = torch.where(present, torch.rand(B, N, K, dtype=dtype) + 0.1, torch.nan)
    return Graph(neighbours, present, mask, weights, torch.randint(0, 3, (B, N, K)))


def make(name: str, dtype: torch.dtype = torch.float64, **more) -> nn.Module:
    layer = LAYERS[name](**more).to(dtype)
    for parameter in layer.parameters():  # biases too
        nn.init.normal_(parameter, std=0.5)
    return layer


@each_layer
def test_gradients_of_features_weights_and_parameters_are_those_of_the_function(name):
    layer, graph = make(name), make_graph()
    x = torch.randn(B, N, F, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def call(x, weights, *parameters):
        given = Graph(graph.neighbours, graph.present, graph.mask, weights, graph.kinds)
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, given))

    weights = graph.weights.clone().requires_grad_()
    assert torch.autograd.gradcheck(call, (x, weights, *parameters), fast_mode=True)
    grads = torch.autograd.grad(call(x, weights, *parameters).square().sum(), (x, *parameters))
    assert all(grad.abs().sum() > 0 for grad in grads)


@each_layer
def test_dead_nodes_send_nothing_receive_nothing_and_get_no_gradient(name):
    layer, graph = make(name), make_graph()
    x = torch.randn(B, N, F, dtype=torch.float64)
    spoilt = torch.where(graph.mask[..., None], x, torch.nan).requires_grad_()
    y = layer(spoilt, graph)
    assert torch.equal(y, layer(x, graph))
    assert (y[~graph.mask] == 0).all()
    y.square().sum().backward()
    assert (spoilt.grad[~graph.mask] == 0).all()
    assert spoilt.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    everything = torch.autograd.functional.jacobian(lambda x: layer(x, graph)[0], x)[:, :, 1:]
    assert (everything == 0).all()  # other dates


@each_layer
def test_a_graph_without_a_node_is_one_in_which_it_is_dead(name):
    layer, graph = make(name), make_graph()
    x = torch.randn(B, N, F, dtype=torch.float64)
    mask = graph.mask.clone()
    mask[:, -1] = False
    y = layer(x, Graph(graph.neighbours, graph.present, mask, graph.weights, graph.kinds))
    present = graph.present & (graph.neighbours < N - 1)
    fewer = [tensor[:, :-1] for tensor in (graph.neighbours, present, graph.mask, graph.weights, graph.kinds)]
    torch.testing.assert_close(layer(x[:, :-1], Graph(*fewer)), y[:, :-1])


@each_layer
def test_outputs_move_with_the_nodes_and_neither_places_nor_padding_count(name):
    layer, graph = make(name), make_graph()
    x = torch.randn(B, N, F, dtype=torch.float64)
    y = layer(x, graph)
    moved, places = torch.randperm(N), torch.randperm(K + 2)

    def table(values, pad):
        wide = torch.cat([values, torch.full((B, N, 2), pad, dtype=values.dtype)], -1)
        return wide[:, moved][:, :, places]

    other = Graph(
        table(moved.argsort()[graph.neighbours], -7),
        table(graph.present, False),
        graph.mask[:, moved],
        table(graph.weights, torch.inf),
        table(graph.kinds, -1),
    )
    torch.testing.assert_close(layer(x[:, moved], other), y[:, moved])


@pytest.mark.parametrize("name", EITHER)
def test_matrices_and_tables_give_the_same(name):
    graph = make_graph()
    table, matrices = make(name, dense=False), make(name, dense=True)
    matrices.load_state_dict(table.state_dict())
    x = torch.randn(B, N, F, dtype=torch.float64, requires_grad=True)
    results = []
    for layer in (table, matrices):
        y = layer(x, graph)
        results.append((y, gradients(y, x, layer)))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.slow
def test_layers_compile_whole():
    """See `compare_compiled`; in a process of its own, as compiled code can't contain the check of annotations."""
    code = "import tests.nn.graph.test_layers as t; t.compare_compiled()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def compare_compiled() -> None:
    for name in LAYERS:
        for dense in (False, True) if name in EITHER else (None,):
            torch._dynamo.reset()
            layer = make(name, torch.float32, **({} if dense is None else {"dense": dense}))
            compiled = torch.compile(layer, fullgraph=True, backend="eager")
            for _ in range(2):
                graph, x = make_graph(torch.float32), torch.randn(B, N, F, requires_grad=True)
                expected, got = layer(x, graph.to("cpu")), compiled(x, graph)  # a graph that keeps nothing, each
                torch.testing.assert_close(got, expected)
                for one, other in zip(gradients(got, x, layer), gradients(expected, x, layer), strict=True):
                    torch.testing.assert_close(one, other)


def gradients(y: torch.Tensor, x: torch.Tensor, layer: nn.Module) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])


@each_layer
def test_half_precision_is_that_of_the_matrix_products_alone(name):
    layer, graph = make(name, torch.float32), make_graph(torch.float32)
    x = torch.randn(B, N, F, requires_grad=True)
    exact = layer(x, graph)
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x, graph)
        rough.square().sum().backward()
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05 * float(exact.detach().abs().max()))
    assert x.grad.isfinite().all()


@each_layer
def test_layers_are_rebuilt_from_their_description(name):
    layer = LAYERS[name]()
    again = build(describe(layer))
    assert describe(again) == describe(layer)
    again.load_state_dict(layer.state_dict())


@each_layer
def test_a_graph_of_dead_nodes_gives_zeros(name):
    graph = make_graph()
    dead = Graph(graph.neighbours, graph.present, torch.zeros_like(graph.mask), graph.weights, graph.kinds)
    x = torch.full((B, N, F), torch.nan, dtype=torch.float64, requires_grad=True)
    y = make(name)(x, dead)
    assert (y == 0).all()
    assert (torch.autograd.grad(y.sum(), x)[0] == 0).all()


def test_what_edges_lack_is_said():
    graph = Graph(torch.zeros(1, 2, 1).long(), torch.ones(1, 2, 1).bool(), torch.ones(1, 2).bool())
    x = torch.randn(1, 2, F)
    for layer in (GATv2(F, D, weighted=True), GraphTransformer(F, D, weighted=True)):
        with pytest.raises(ValueError, match="give the graph weights"):
            layer(x, graph)
    for layer in (GATv2(F, D, kinds=2), RelationalGCN(F, D, 2), GraphTransformer(F, D, kinds=2)):
        with pytest.raises(ValueError, match="give the graph kinds"):
            layer(x, graph)
    kinds = torch.full((1, 2, 1), 2)
    with pytest.raises(IndexError):
        RelationalGCN(F, D, 2)(x, Graph(graph.neighbours, graph.present, graph.mask, kinds=kinds))
