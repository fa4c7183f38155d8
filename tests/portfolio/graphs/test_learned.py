import subprocess
import sys

import pytest
import torch

from qtorch.nn import specs
from qtorch.nn.graph import GCN
from qtorch.portfolio.graphs import LearnedGraph

MASK = torch.tensor([[True] * 6, [True, False, True, True, False, True]])


@pytest.mark.parametrize("symmetric", [False, True])
def test_edges_are_those_of_the_equations(symmetric):
    learned = LearnedGraph(4, k=2, width=8, symmetric=symmetric)
    states = torch.randn(2, 6, 4)
    one, other = learned.project(states).tanh().chunk(2, -1)
    product = torch.einsum("bid,bjd->bij", one, other)
    turned = product.mT if symmetric else -product.mT
    score = torch.relu(torch.tanh(3.0 / 8**0.5 * (product + turned)))
    there, weights = learned(states, MASK).to_dense()
    for b in range(2):
        for i in range(6):
            allowed = [j for j in range(6) if j != i and MASK[b, i] and MASK[b, j] and score[b, i, j] > 0]
            want = sorted(allowed, key=lambda j, b=b, i=i: -score[b, i, j])[:2]
            assert there[b, i].nonzero().flatten().tolist() == sorted(want)
            torch.testing.assert_close(weights[b, i, want], score[b, i, want])
    if not symmetric:
        assert not torch.logical_and(there, there.mT).any()


def test_what_is_masked_does_not_matter():
    learned = LearnedGraph(4, k=3)
    states = torch.randn(2, 6, 4)
    broken = torch.where(MASK[..., None], states, torch.nan).requires_grad_()
    graph = learned(broken, MASK)
    for one, other in zip(graph.to_dense(), learned(states, MASK).to_dense(), strict=True):
        assert torch.equal(one, other)
    graph.weights.sum().backward()
    assert broken.grad.isfinite().all()
    assert (broken.grad[~MASK] == 0).all()
    assert (broken.grad[MASK].abs().sum(-1) > 0).any()
    assert learned.project.weight.grad.isfinite().all()


def test_weights_are_differentiable():
    learned = LearnedGraph(3, k=2, width=4).double()
    states = torch.randn(1, 5, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 5, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda x: learned(x, mask).weights, states)


def test_new_assets_need_states_only():
    states = torch.randn(2, 9, 4)
    assert LearnedGraph(4, k=3)(states, torch.ones(2, 9).bool()).mask.shape == (2, 9)
    with pytest.raises(ValueError, match="vectors of 6 assets, not 9"):
        LearnedGraph(4, k=3, assets=6)(states, torch.ones(2, 9).bool())
    assert LearnedGraph(4, k=3, assets=6)(states[:, :6], MASK).present.any()


def test_one_asset_hears_nobody():
    assert not LearnedGraph(4, k=3)(torch.randn(2, 1, 4), torch.ones(2, 1).bool()).present.any()


@pytest.mark.slow
def test_compiled_in_one_piece():
    """In a process of its own, as compiled code can't contain the check of annotations."""
    code = "import tests.portfolio.graphs.test_learned as t; t.compare_compiled()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def compare_compiled() -> None:
    learned, layer = LearnedGraph(4, k=3), GCN(4, 2, dense=True)
    states = torch.randn(2, 6, 4)

    def both(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return layer(x, learned(x, mask))

    compiled = torch.compile(both, fullgraph=True, backend="eager")
    expected, got = both(states, MASK), compiled(states, MASK)
    torch.testing.assert_close(got, expected)
    weight = learned.project.weight
    for one, other in zip(*(torch.autograd.grad(y.square().sum(), weight) for y in (got, expected)), strict=True):
        torch.testing.assert_close(one, other)


def test_scores_are_in_float32_under_autocast():
    learned, states = LearnedGraph(4, k=3), torch.randn(2, 6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        graph = learned(states, MASK)
    assert graph.weights.dtype == torch.float32
    torch.testing.assert_close(graph.to_dense()[1], learned(states, MASK).to_dense()[1], rtol=0.05, atol=0.05)


def test_it_is_made_again_from_its_description():
    learned = LearnedGraph(4, k=3, symmetric=True)
    again = specs.build(specs.describe(learned))
    again.load_state_dict(learned.state_dict())
    states = torch.randn(2, 6, 4)
    assert torch.equal(again(states, MASK).weights, learned(states, MASK).weights)


@pytest.mark.parametrize("setting", ["k", "width", "saturation"])
def test_settings_out_of_bounds_are_refused(setting):
    zero = 0.0 if setting == "saturation" else 0
    with pytest.raises(ValueError, match=f"{setting}=0"):
        LearnedGraph(**{"in_features": 4, "k": 2} | {setting: zero})
