"""Graphs of assets, one for each date of a batch, as tables of neighbours."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qtorch.errors import ArgumentError
from qtorch.nn.graph.links import Links, link

Kept = TypeVar("Kept")


@dataclass(frozen=True, eq=False)
class Graph:
    """A batch of graphs: for each date and node, the nodes that it hears from.

    A node that is not alive neither sends nor receives: an edge is there only if both its ends are alive, whatever
    `present` says. Places without an edge point to the node itself and weigh 0, whatever stood there, NaN included.
    What layers derive from a graph is kept with it, so that several layers share the work; where weights carry
    gradients, that lasts for one backward pass, and the next step makes its graph anew.

    Args:
        neighbours: the source of each edge, a node of the same date.
        present: False for padding.
        mask: which nodes are alive.
        weights: of edges, such as correlations; layers that take no weights do not look at them.
        kinds: of edges, from 0, such as 0 for the same sector and 1 for a supplier.

    Raises:
        ValueError: the shapes or types do not fit, a neighbour is no node, a kind is negative or a weight of an edge
            is not finite.

    Example:
        >>> neighbours = torch.tensor([[[1, 2], [0, 0], [0, 1]]])
        >>> graph = Graph(neighbours, torch.tensor([[[True, True], [True, False], [True, True]]]),
        ...               mask=torch.tensor([[True, True, False]]))
        >>> graph.present[0].tolist()
        [[True, False], [True, False], [False, False]]
    """

    neighbours: Int[Tensor, "B N K"]
    present: Bool[Tensor, "B N K"]
    mask: Bool[Tensor, "B N"]
    weights: Float[Tensor, "B N K"] | None = None
    kinds: Int[Tensor, "B N K"] | None = None
    _kept: dict[tuple[str, bool], Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Checks the tensors and clears what is not there."""
        self._check_shapes()
        B, N, K = self.neighbours.shape
        own = torch.arange(N, device=self.mask.device)[:, None]
        if not torch.compiler.is_compiling():
            self._check_neighbours()
        neighbours = torch.where(self.present, self.neighbours, own).long()
        heard = self.mask.gather(1, neighbours.reshape(B, N * K)).view(B, N, K)
        present = torch.logical_and(torch.logical_and(self.present, heard), self.mask[..., None])
        self._set("neighbours", torch.where(present, neighbours, own))
        self._set("present", present)
        if self.weights is not None:
            self._set("weights", torch.where(present, self.weights, 0.0))
        if self.kinds is not None:
            self._set("kinds", torch.where(present, self.kinds, 0).long())
        if not torch.compiler.is_compiling():
            self._check_edges()

    @classmethod
    def from_dense(
        cls,
        adjacency: Float[Tensor, "B N N"],
        mask: Bool[Tensor, "B N"],
        kinds: Int[Tensor, "B N N"] | None = None,
    ) -> "Graph":
        """A graph of matrices whose row i and column j has the weight of the edge from j to i.

        Args:
            adjacency: 0 or NaN where there is no edge.
            mask: which nodes are alive.
            kinds: of edges.

        Raises:
            ValueError: as of the constructor.

        Example:
            >>> graph = Graph.from_dense(torch.tensor([[[0.0, 0.5], [torch.nan, 0.0]]]), torch.ones(1, 2).bool())
            >>> graph.neighbours.tolist(), graph.weights.tolist()
            ([[[1], [1]]], [[[0.5], [0.0]]])
        """
        there = torch.logical_and(adjacency != 0, ~adjacency.isnan())
        there = torch.logical_and(torch.logical_and(there, mask[:, None]), mask[..., None])
        most = max(int(there.sum(-1).max()), 1) if there.numel() else 1
        present, neighbours = there.to(torch.uint8).sort(dim=-1, descending=True, stable=True)
        present, neighbours = present[..., :most].bool(), neighbours[..., :most]
        return cls(
            neighbours,
            present,
            mask,
            adjacency.gather(-1, neighbours),
            None if kinds is None else kinds.gather(-1, neighbours),
        )

    @classmethod
    def from_edges(
        cls,
        edge_index: Int[Tensor, "2 E"],
        mask: Bool[Tensor, "B N"],
        weights: Float[Tensor, " E"] | None = None,
        kinds: Int[Tensor, " E"] | None = None,
    ) -> "Graph":
        """A graph of a list of edges, numbered over the batch: node n of date b is b N + n.

        Args:
            edge_index: sources, then targets.
            mask: which nodes are alive; it says how many dates and nodes there are.
            weights: of edges.
            kinds: of edges.

        Raises:
            ValueError: an edge joins nodes of different dates or none at all, and as of the constructor.

        Example:
            >>> graph = Graph.from_edges(torch.tensor([[1, 2, 0], [0, 0, 2]]), torch.ones(1, 3).bool())
            >>> graph.neighbours.tolist()
            [[[1, 2], [1, 1], [0, 2]]]
        """
        (B, N), E = mask.shape, edge_index.shape[1]
        if E and not (int(edge_index.min()) >= 0 and int(edge_index.max()) < B * N):
            raise ArgumentError(f"edge_index must be from 0 to {B * N - 1}, the nodes of {B} dates with {N} each.")
        source, target = edge_index
        if wrong := (source // N != target // N).nonzero().flatten().tolist():
            first = wrong[0]
            raise ArgumentError(
                f"edge {first} goes from node {int(source[first])} to {int(target[first])}, which are of different"
                f" dates; with {N} nodes a date, node n of date b is {N} b + n."
            )
        target, order = target.sort(stable=True)
        degrees = torch.bincount(target, minlength=B * N)
        place = torch.arange(E, device=target.device) - (degrees.cumsum(0) - degrees)[target]
        K = max(int(degrees.max()), 1) if E else 1

        def table(values: Tensor) -> Tensor:
            return values.new_zeros(B * N, K).index_put((target, place), values[order]).view(B, N, K)

        return cls(
            table(source % N),
            table(torch.ones_like(source, dtype=torch.bool)),
            mask,
            None if weights is None else table(weights),
            None if kinds is None else table(kinds),
        )

    def __getitem__(self, at: Int[Tensor, " Q"] | slice) -> "Graph":
        """The graphs of some of the dates."""
        return self._with(lambda tensor: tensor[at])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Graph":
        """The graph on a device."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Graph":
        """The graph in page-locked memory."""
        return self._with(Tensor.pin_memory)

    def to_edges(self) -> tuple[Int[Tensor, "2 E"], Float[Tensor, " E"] | None, Int[Tensor, " E"] | None]:
        """The edges that are there, numbered over the batch, with their weights and kinds; see `from_edges`."""
        there = self.present.view(-1).nonzero().squeeze(1)
        K = self.present.shape[2]

        def listed(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.reshape(-1)[there]

        source = self.links.source[there]
        return torch.stack([source, there // K]), listed(self.weights), listed(self.kinds)

    def to_dense(self) -> tuple[Bool[Tensor, "B N N"], Float[Tensor, "B N N"]]:
        """Whether there is an edge from column j to row i, and its weight: 1 without weights; of several, the sum."""
        there = self.dense(self.present.float())
        return there > 0, there if self.weights is None else self.dense(self.weights)

    def dense(self, values: Float[Tensor, "*heads B N K"]) -> Float[Tensor, "*heads B N N"]:
        """Numbers of edges, 0 where there is none, as matrices; those of several edges between two nodes are added."""
        N = self.neighbours.shape[1]
        zeros = values.new_zeros(*values.shape[:-1], N)
        return zeros.scatter_add(-1, self.neighbours.expand(values.shape), values)

    @property
    def links(self) -> Links:
        """The edges over the rows of the batch."""
        return self.keep("links", lambda: link(self.neighbours, self.present))

    @property
    def looped(self) -> "Graph":
        """The graph with an edge from each living node to itself, in the first place of its row.

        An edge to itself that a node has already is moved there with its weight (of several, the sum); others weigh 1.
        Their kind is 0.
        """
        return self.keep("looped", self._loop)

    @property
    def hearing(self) -> Bool[Tensor, "B N 1"]:
        """Which nodes have neighbours."""
        return self.keep("hearing", lambda: self.present.any(-1, keepdim=True))

    @property
    def barrier(self) -> Float[Tensor, "R K"]:
        """What a score of attention gets added, so that places without an edge weigh 0 after a softmax.

        It is a large number below 0, since with infinities a row without an edge would have no softmax.
        """
        return self.keep("barrier", lambda: torch.where(self.present, 0.0, -1e30).flatten(0, 1))

    def keep(self, name: str, make: Callable[[], Kept]) -> Kept:
        """What was made under a name before, or is made now."""
        key = name, torch.is_grad_enabled()  # what was made without gradients may be needed with them
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _loop(self) -> "Graph":
        B, N, _ = self.neighbours.shape
        own = torch.arange(N, device=self.mask.device)[:, None]
        loop = torch.logical_and(self.present, self.neighbours == own)
        weights = self.weights
        if weights is not None:
            total = torch.where(loop, weights, 0.0).sum(-1, keepdim=True)
            first = torch.where(loop.any(-1, keepdim=True), total, self.mask[..., None].to(weights.dtype))
            weights = torch.cat([first, torch.where(loop, 0.0, weights)], -1)
        kinds = self.kinds
        if kinds is not None:
            kinds = torch.cat([torch.zeros_like(kinds[..., :1]), kinds], -1)
        neighbours = torch.cat([own.expand(B, N, 1), self.neighbours], -1)
        present = torch.cat([self.mask[..., None], torch.logical_and(self.present, ~loop)], -1)
        return self._made({"neighbours": neighbours, "present": present, "weights": weights, "kinds": kinds})

    def _with(self, function: Callable[[Tensor], Tensor]) -> "Graph":
        tensors = {item.name: getattr(self, item.name) for item in fields(self) if item.init}
        return self._made({name: None if tensor is None else function(tensor) for name, tensor in tensors.items()})

    def _made(self, tensors: dict[str, Tensor | None]) -> "Graph":
        """A graph of tensors that need no check, and otherwise of this one's."""
        made = object.__new__(Graph)
        for item in fields(self):
            if item.init:
                made._set(item.name, tensors.get(item.name, getattr(self, item.name)))
        made._set("_kept", {})
        return made

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_shapes(self) -> None:
        shape = tuple(self.neighbours.shape)
        if len(shape) != 3 or shape[2] < 1:
            raise ArgumentError(f"neighbours must be [B, N, K] with K of 1 or more, not {list(shape)}.")
        for name in ("present", "weights", "kinds"):
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ArgumentError(
                    f"{name} must have the shape of neighbours, {list(shape)}, not {list(tensor.shape)}."
                )
        if tuple(self.mask.shape) != shape[:2]:
            raise ArgumentError(f"mask must be [B, N] = {list(shape[:2])}, not {list(self.mask.shape)}.")
        for name in ("present", "mask"):
            if getattr(self, name).dtype != torch.bool:
                raise ArgumentError(f"{name} must be bool, True where usable, not {getattr(self, name).dtype}.")

    def _check_neighbours(self) -> None:
        N = self.neighbours.shape[1]
        wrong = torch.logical_and(self.present, torch.logical_or(self.neighbours < 0, self.neighbours >= N))
        if wrong.any():
            b, n, k = wrong.nonzero()[0].tolist()
            raise ArgumentError(
                f"neighbours[{b}, {n}, {k}] is {int(self.neighbours[b, n, k])}, but nodes are 0 to {N - 1};"
                " places without an edge must be False in present."
            )

    def _check_edges(self) -> None:
        for name, bad, rule in (
            ("weights", self.weights is not None and ~self.weights.isfinite(), "the weight of an edge must be finite"),
            ("kinds", self.kinds is not None and self.kinds < 0, "kinds count from 0"),
        ):
            if isinstance(bad, Tensor) and bad.any():
                b, n, k = bad.nonzero()[0].tolist()
                raise ArgumentError(f"{name}[{b}, {n}, {k}] is {getattr(self, name)[b, n, k].item()}: {rule}.")
