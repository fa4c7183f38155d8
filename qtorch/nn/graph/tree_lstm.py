"""Tree-LSTM up and down dendrograms of assets."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions.transforms.bijection import promoted
from qtorch.errors import ArgumentError
from qtorch.nn.graph.tree import Tree

CELLS = ("child_sum", "binary")


class TreeStates(NamedTuple):
    """What a Tree-LSTM makes of a batch of trees.

    Attributes:
        root: each date's, 0 without a living leaf.
        leaves: each leaf's after the way down, 0 where dead.
    """

    root: Float[Tensor, "B D"]
    leaves: Float[Tensor, "B N D"]


class TreeLSTM(nn.Module):
    """A Tree-LSTM from the leaves of each date's tree up to its root, and an LSTM from there down to each leaf.

    On the way up, an inner node's state is made of its children's by Tai et al.'s cell without inputs; leaves' states
    are made of their features by weights of their own. On the way down, which theirs does not have, a node's state is
    that of an LSTM step whose input is its state from the way up and whose last state is its parent's from the way
    down; so an asset learns of its cluster, of the cluster's cluster, and of the market.

    With the cell ``"child_sum"`` the order of children does not matter, so that leaves may be permuted; ``"binary"``
    tells the first from the second child.

    The tree is not a tensor's shape but differs from date to date: a compiled layer is compiled anew for trees of other
    shapes.

    Args:
        in_features: F.
        width: of the states, D.
        cell: ``"child_sum"`` or ``"binary"``.

    Raises:
        ValueError: the cell is not known.

    References:
        Tai, Socher and Manning (2015), Improved semantic representations from tree-structured long short-term memory
        networks, ACL, equations 2 to 14; Teng and Zhang (2017), Head-lexicalized bidirectional tree LSTMs, TACL, for
        the way down.

    Example:
        >>> tree = Tree(torch.tensor([[[0, 2], [1, 3]]]), mask=torch.ones(1, 3).bool())
        >>> root, leaves = TreeLSTM(4, 8)(torch.randn(1, 3, 4), tree)
        >>> root.shape, leaves.shape
        (torch.Size([1, 8]), torch.Size([1, 3, 8]))
    """

    def __init__(self, in_features: int, width: int, cell: str = "child_sum") -> None:
        super().__init__()
        if cell not in CELLS:
            raise ArgumentError(f"cell must be one of {', '.join(CELLS)}, not {cell!r}.")
        self.in_features, self.width, self.cell = in_features, width, cell
        self.leaf = nn.Linear(in_features, 3 * width)
        if cell == "binary":
            self.join = nn.Linear(2 * width, 5 * width)
        else:
            self.join = nn.Linear(width, 3 * width)
            self.forget = nn.Linear(width, width)
        self.down = nn.Linear(2 * width, 4 * width)

    def forward(self, x: Float[Tensor, "B N F"], tree: Tree) -> TreeStates:
        """The states of the roots and of the leaves."""
        B, N = x.shape[:2]
        h, c = _cell(promoted(self.leaf(x.flatten(0, 1).index_select(0, tree.leaves))))
        children = []
        for level in tree.levels:
            pairs = torch.stack([level.left, level.right])
            below, memory = h[pairs], c[pairs]
            new_h, new_c = self._join(below, memory)
            children.append(below)
            h, c = torch.cat([h[level.kept], new_h]), torch.cat([c[level.kept], new_c])
        root = h.new_zeros(B, self.width).index_copy(0, tree.dates, h[tree.roots])
        h, c = self._descend(h, torch.zeros_like(h), torch.zeros_like(c))
        for level, below in zip(reversed(tree.levels), reversed(children), strict=True):
            kept = len(level.kept)
            parent, memory = (part[kept:].repeat(2, 1) for part in (h, c))
            new_h, new_c = self._descend(below.flatten(0, 1), parent, memory)
            h, c = torch.cat([h[:kept], new_h])[level.back], torch.cat([c[:kept], new_c])[level.back]
        leaves = h.new_zeros(B * N, self.width).index_copy(0, tree.leaves, h)
        return TreeStates(root, leaves.view(B, N, self.width))

    def _join(self, h: Float[Tensor, "2 M D"], c: Float[Tensor, "2 M D"]) -> tuple[Tensor, Tensor]:
        """States of nodes from those of their two children."""
        if self.cell == "binary":
            gates, forget = promoted(self.join(torch.cat([*h], -1))).split([3 * self.width, 2 * self.width], -1)
            forget = torch.stack(forget.chunk(2, -1))
        else:
            gates, forget = promoted(self.join(h.sum(0))), promoted(self.forget(h))
        return _cell(gates, (torch.sigmoid(forget) * c).sum(0))

    def _descend(
        self, h: Float[Tensor, "M D"], parent: Float[Tensor, "M D"], memory: Float[Tensor, "M D"]
    ) -> tuple[Tensor, Tensor]:
        """States of nodes on the way down from theirs on the way up and their parents' on the way down."""
        gates, forget = promoted(self.down(torch.cat([h, parent], -1))).split([3 * self.width, self.width], -1)
        return _cell(gates, torch.sigmoid(forget) * memory)


def _cell(gates: Float[Tensor, "M G"], kept: Float[Tensor, "M D"] | None = None) -> tuple[Tensor, Tensor]:
    """Hidden state and memory from the sums before the gates i, o and u, and from what is kept of older memory."""
    i, o, u = gates.chunk(3, -1)
    c = torch.sigmoid(i) * torch.tanh(u)
    if kept is not None:
        c = c + kept
    return torch.sigmoid(o) * torch.tanh(c), c
