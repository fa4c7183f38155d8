import subprocess
import sys

import pytest
import torch
from scipy.cluster.hierarchy import linkage
from torch import Tensor

from qtorch.nn import build, describe
from qtorch.nn.graph import Tree, TreeLSTM

B, N, F, D = 4, 11, 3, 5
each_cell = pytest.mark.parametrize("cell", ["child_sum", "binary"])


def make_merges(dates: int = B, leaves: int = N) -> Tensor:
    """Linkages of random points; chains and balanced trees among them."""
    methods = ("single", "complete", "average", "ward")
    found = [linkage(torch.randn(leaves, 2).numpy(), methods[b % 4])[:, :2] for b in range(dates)]
    return torch.stack([torch.from_numpy(one) for one in found]).long()


def make_mask() -> Tensor:
    mask = torch.rand(B, N) < 0.7
    mask[0], mask[1], mask[2] = True, False, torch.arange(N) == 4
    return mask


def make(cell: str) -> TreeLSTM:
    return TreeLSTM(F, D, cell).double()


def recursive(layer: TreeLSTM, x: Tensor, merges: list[list[int]], mask: list[bool]) -> tuple[Tensor, Tensor]:
    """One date, node by node."""
    n, up, leaves = len(mask), {}, torch.zeros(len(mask), D, dtype=x.dtype)

    def step(gates, rest):
        i, o, u = gates.split(D)
        c = i.sigmoid() * u.tanh() + rest
        return o.sigmoid() * c.tanh(), c

    def climb(node: int):
        """The node that stands for this one, or None."""
        if node < n:
            if mask[node]:
                up[node] = step(layer.leaf(x[node]), 0.0)
            return (node, ()) if mask[node] else None
        below = [found for child in merges[node - n] if (found := climb(child))]
        if len(below) < 2:
            return below[0] if below else None
        (h_1, c_1), (h_2, c_2) = (up[child[0]] for child in below)
        if layer.cell == "binary":
            gates = layer.join(torch.cat([h_1, h_2]))
            f_1, f_2 = gates[3 * D :].sigmoid().split(D)
            gates = gates[: 3 * D]
        else:
            gates, f_1, f_2 = layer.join(h_1 + h_2), layer.forget(h_1).sigmoid(), layer.forget(h_2).sigmoid()
        up[node] = step(gates, f_1 * c_1 + f_2 * c_2)
        return node, tuple(below)

    def fall(found, h, c):
        node, below = found
        gates = layer.down(torch.cat([up[node][0], h]))
        h, c = step(gates[: 3 * D], gates[3 * D :].sigmoid() * c)
        if not below:
            leaves[node] = h
        for child in below:
            fall(child, h, c)

    top = climb(2 * n - 2)
    if top is None:
        return torch.zeros(D, dtype=x.dtype), leaves
    zero = torch.zeros(D, dtype=x.dtype)
    fall(top, zero, zero)
    return up[top[0]][0], leaves


@each_cell
def test_it_is_the_recursion(cell):
    layer, merges, mask = make(cell), make_merges(), make_mask()
    x = torch.randn(B, N, F, dtype=torch.float64, requires_grad=True)
    got = layer(x, Tree(merges, mask))
    dates = [recursive(layer, x[b], merges[b].tolist(), mask[b].tolist()) for b in range(B)]
    expected = tuple(torch.stack(parts) for parts in zip(*dates, strict=True))
    torch.testing.assert_close(tuple(got), expected, rtol=1e-12, atol=1e-12)
    wanted = [x, *layer.parameters()]
    one, other = (torch.autograd.grad(sum(part.sin().sum() for part in parts), wanted) for parts in (got, expected))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert all(grad.abs().sum() > 0 for grad in one)


@each_cell
def test_dead_leaves_are_not_there(cell):
    layer, tree = make(cell), Tree(make_merges(), make_mask())
    x = torch.randn(B, N, F, dtype=torch.float64)
    spoilt = torch.where(tree.mask[..., None], x, torch.nan).requires_grad_()
    root, leaves = layer(spoilt, tree)
    assert torch.equal(root, layer(x, tree).root)
    assert torch.equal(leaves, layer(x, tree).leaves)
    assert (leaves[~tree.mask] == 0).all()
    assert (root[1] == 0).all()
    (root.sum() + leaves.square().sum()).backward()
    assert (spoilt.grad[~tree.mask] == 0).all()
    assert spoilt.grad.isfinite().all()


@each_cell
def test_a_tree_without_a_dead_leaf_gives_the_same(cell):
    """Leaf 0 joins last, so that without it the tree is what the other merges make."""
    layer, inner = make(cell), make_merges(1, 5)
    merges = torch.cat([inner + 1, torch.tensor([[[0, 9]]])], 1)
    x = torch.randn(1, 6, F, dtype=torch.float64)
    root, leaves = layer(x, Tree(merges, torch.arange(6)[None] > 0))
    alone = layer(x[:, 1:], Tree(inner, torch.ones(1, 5).bool()))
    torch.testing.assert_close((root, leaves[:, 1:]), tuple(alone))


def test_leaves_may_be_permuted_and_children_swapped():
    layer, merges, mask = make("child_sum"), make_merges(), make_mask()
    x = torch.randn(B, N, F, dtype=torch.float64)
    moved = torch.randperm(N)
    renamed = torch.cat([moved.argsort(), torch.arange(N, 2 * N - 1)])[merges].flip(-1)
    root, leaves = layer(x, Tree(merges, mask))
    other = layer(x[:, moved], Tree(renamed, mask[:, moved]))
    torch.testing.assert_close(tuple(other), (root, leaves[:, moved]))


def test_each_leaf_hears_of_all_of_its_date():
    layer = make("child_sum")
    x = torch.randn(1, N, F, dtype=torch.float64)
    tree = Tree(make_merges(1), torch.ones(1, N).bool())
    by_x = torch.autograd.functional.jacobian(lambda x: layer(x, tree).leaves[0].sum(-1), x)
    assert (by_x.abs().sum(-1) > 0).all()


@each_cell
def test_half_precision_and_descriptions(cell):
    layer, tree, x = make(cell).float(), Tree(make_merges(), make_mask()), torch.randn(B, N, F)
    again = build(describe(layer))
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(tuple(again(x, tree.to("cpu"))), tuple(layer(x, tree)))
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x, tree)
        rough.leaves.sum().backward()
    torch.testing.assert_close(tuple(rough), tuple(layer(x, tree)), rtol=0.05, atol=0.02)


def test_levels_are_few_and_a_single_leaf_is_a_tree():
    balanced = [[2 * i, 2 * i + 1] for i in range(15)]
    assert [len(level.left) for level in Tree(torch.tensor([balanced]), torch.ones(1, 16).bool()).levels] == [
        8,
        4,
        2,
        1,
    ]
    layer = make("binary")
    root, leaves = layer(
        torch.randn(2, 1, F, dtype=torch.float64), Tree(torch.zeros(2, 0, 2).long(), torch.ones(2, 1).bool())
    )
    assert root.shape == (2, D)
    assert (leaves != 0).all()


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ([[0, 1]], r"merges must be \[B, N - 1, 2\]"),
        ([[0, 3], [1, 2]], r"merges\[0, 0, 1\] is 3, but before merge 0 there are only nodes 0 to 2"),
        ([[0, 1], [0, 2]], r"merges\[0\] has a node that is merged twice"),
    ],
)
def test_faults_are_located(merges, message):
    with pytest.raises(ValueError, match=message):
        Tree(torch.tensor([merges]), torch.ones(1, 3).bool())


@pytest.mark.slow
def test_it_compiles_whole():
    """In a process of its own, as compiled code can't contain the run-time check of annotations."""
    code = "import tests.nn.graph.test_tree as t; t.compare_compiled()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def compare_compiled() -> None:
    for cell in ("child_sum", "binary"):
        layer, tree, x = make(cell), Tree(make_merges(), make_mask()), torch.randn(B, N, F, dtype=torch.float64)
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        torch.testing.assert_close(tuple(compiled(x, tree)), tuple(layer(x, tree)))
