"""Dendrograms of assets, one for each date of a batch, laid out for work level by level."""

import math
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from qtorch.errors import ArgumentError


class Level(NamedTuple):
    """The merges of one level, over all dates: which states join, and which are left for later levels.

    The states after it are those kept, then those of the merges.

    Attributes:
        left: rows of the first children among the states before.
        right: rows of the second children.
        kept: rows of all others.
        back: for each row before, its place in the kept, the first children and the second, one after the other.
    """

    left: Int[Tensor, " M"]
    right: Int[Tensor, " M"]
    kept: Int[Tensor, " L"]
    back: Int[Tensor, " P"]


@dataclass(frozen=True, eq=False)
class Tree:
    """A batch of binary trees over the same N leaves, each date with a shape of its own.

    Dead leaves are as if they had never been there: a merge of a dead and a living subtree is the living one. All
    merges of a level are done at once, over all dates, so that layers take as many steps as the deepest tree has
    levels: from log2 N for balanced ones to N - 1 for chains, which single linkage tends to make.

    Args:
        merges: the two children of each merge, in the order of `scipy.cluster.hierarchy.linkage`: ids below N are
            leaves, N + m is what merge m made.
        mask: which leaves are alive.

    Attributes:
        leaves: rows of the living leaves among the `B N` of the batch; theirs are the first states.
        levels: from the leaves up.
        dates: those with a living leaf.
        roots: for each of them the row of its root among the last states.

    Raises:
        ValueError: the shapes do not fit, or the children are not as linkage numbers them.

    Example:
        >>> tree = Tree(torch.tensor([[[0, 2], [1, 3]]]), mask=torch.ones(1, 3).bool())
        >>> len(tree.levels), len(Tree(tree.merges, torch.tensor([[True, True, False]])).levels)
        (2, 1)
    """

    merges: Int[Tensor, "B M 2"]
    mask: Bool[Tensor, "B N"]
    leaves: Int[Tensor, " A"] = field(init=False, repr=False)
    levels: tuple[Level, ...] = field(init=False, repr=False)
    dates: Int[Tensor, " R"] = field(init=False, repr=False)
    roots: Int[Tensor, " R"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Checks the merges and lays out the levels."""
        _check(self.merges, self.mask)
        for name, value in _lay_out(self.merges.long(), self.mask).items():
            object.__setattr__(self, name, value)

    def __getitem__(self, at: Int[Tensor, " Q"] | slice) -> "Tree":
        """The trees of some of the dates, laid out anew."""
        return Tree(self.merges[at], self.mask[at])

    def to(self, device: torch.device | str) -> "Tree":
        """The tree on a device."""
        moved = object.__new__(Tree)
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                value = value.to(device)
            else:
                value = tuple(Level(*(rows.to(device) for rows in level)) for level in value)
            object.__setattr__(moved, item.name, value)
        return moved


def _check(merges: Tensor, mask: Tensor) -> None:
    B, N = mask.shape
    if N < 1 or tuple(merges.shape) != (B, N - 1, 2):
        raise ArgumentError(f"merges must be [B, N - 1, 2] with the mask's B={B} and N={N}, not {list(merges.shape)}.")
    made = torch.arange(N, 2 * N - 1, device=merges.device)[:, None]
    early = torch.logical_or(merges < 0, merges >= made)
    if early.any():
        b, m, k = early.nonzero()[0].tolist()
        raise ArgumentError(
            f"merges[{b}, {m}, {k}] is {int(merges[b, m, k])},"
            f" but before merge {m} there are only nodes 0 to {N + m - 1}."
        )
    once = merges.flatten(1).sort(1).values == torch.arange(2 * N - 2, device=merges.device)
    if not once.all():
        b = int((~once.all(1)).nonzero()[0])
        raise ArgumentError(f"merges[{b}] has a node that is merged twice; each is to be in one merge.")


def _lay_out(merges: Tensor, mask: Tensor) -> dict[str, Tensor | tuple[Level, ...]]:
    """What the constructor adds to a tree, by name."""
    (B, N), device = mask.shape, mask.device
    T = 2 * N - 1  # nodes of a tree
    stands, height, both = _heights(merges, mask)
    first = torch.arange(B, device=device)[:, None] * T
    stands = (stands + first).view(-1)
    children = stands[(merges + first[..., None]).view(-1, 2)]
    made = (torch.arange(N, T, device=device) + first).view(-1)
    level_of = torch.where(both, height[:, N:], 0).view(-1)

    leaves = mask.view(-1).nonzero().squeeze(1)
    nodes = leaves // N * T + leaves % N  # whose states there are
    row = torch.full((B * T,), -1, device=device)
    row[nodes] = torch.arange(len(nodes), device=device)
    levels = []
    for level in range(1, int(level_of.max()) + 1 if level_of.numel() else 1):
        merged = (level_of == level).nonzero().squeeze(1)
        left, right = row[children[merged]].unbind(1)
        alone = torch.ones(len(nodes), dtype=torch.bool, device=device)
        alone[left] = False
        alone[right] = False
        kept = alone.nonzero().squeeze(1)
        levels.append(Level(left, right, kept, torch.cat([kept, left, right]).argsort()))
        nodes = torch.cat([nodes[kept], made[merged]])
        row[nodes] = torch.arange(len(nodes), device=device)
    dates, roots = (nodes // T).sort()
    return {"leaves": leaves, "levels": tuple(levels), "dates": dates, "roots": roots}


def _heights(merges: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each node the node that stands for it, its height without dead leaves; and which merges join two living ones.

    Heights of all nodes are set at once from those of their children, until nothing changes: a pass for each level.
    """
    (B, N), device = mask.shape, mask.device
    flat = merges.flatten(1)
    alive = torch.cat([mask, torch.zeros_like(mask[:, 1:])], 1)
    height = torch.zeros(alive.shape, dtype=torch.int64, device=device)
    while True:
        alive_children = alive.gather(1, flat).view(merges.shape)
        both = alive_children.all(2)
        new_alive = torch.cat([mask, alive_children.any(2)], 1)
        new_height = torch.cat([height[:, :N], height.gather(1, flat).view(merges.shape).amax(2) + both], 1)
        if torch.equal(new_alive, alive) and torch.equal(new_height, height):
            break
        alive, height = new_alive, new_height
    nodes = torch.arange(2 * N - 1, device=device).expand(B, -1)
    only = torch.where(alive_children[..., 0], merges[..., 0], merges[..., 1])
    stands = torch.cat([nodes[:, :N], torch.where(both, nodes[:, N:], only)], 1)
    for _ in range(math.ceil(math.log2(2 * N))):
        stands = stands.gather(1, stands)
    return stands, height, both
