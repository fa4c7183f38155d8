"""Parameters of assets in an order, those of each from the assets before it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qtorch.nn.cross_conditioner import CrossConditioner, rows
from qtorch.nn.memory_block import Memory


class OrderedConditioner:
    """A `CrossConditioner` in which each asset sees those before it: all at once, or step by step.

    The first row of the parameters is 1 where they count: at assets that are there and have one before them. It is a
    `qtorch.distributions.transforms.MaskedConditioner`.

    Args:
        network: of the parameters that follow the first.
        ask: of the assets in their order, `[*batch, N, W]`, as `CrossConditioner.contexts` gives it.
        tell: likewise.
        there: which of them are there, `[*batch, N]`.
    """

    def __init__(
        self,
        network: CrossConditioner,
        ask: Float[Tensor, "*batch N W"],
        tell: Float[Tensor, "*batch N W"],
        there: Bool[Tensor, "*batch N"],
    ) -> None:
        self.network, self.ask, self.tell, self.there = network, ask, tell, there
        self.active = torch.logical_and(there, there.long().cumsum(-1) > 1)

    def __call__(self, x: Float[Tensor, "N ..."]) -> Float[Tensor, "P N ..."]:
        """Those of asset i depend on values x_1 to x_i-1."""
        N, shape = x.shape[0], x.shape[1:]
        ask, tell = (rows(part, shape, 2) for part in (self.ask, self.tell))
        there, values = rows(self.there, shape, 1), x.movedim(0, -1).reshape(-1, N)
        place = torch.arange(N, device=x.device)
        seen = torch.logical_and(place[:, None] > place, there.unsqueeze(1))
        found = self.network(ask, self.network.memories(tell, values), seen)
        found = torch.cat((self._flag(self.active, found, shape), found))
        return found.reshape(found.shape[0], *shape, N).movedim(-1, 1)

    def steps(self, shape: torch.Size) -> "OrderedSteps":
        """The same, step by step, for values of a batch shape."""
        return OrderedSteps(self, shape)

    @staticmethod
    def _flag(active: Tensor, like: Tensor, shape: torch.Size) -> Tensor:
        return rows(active, shape, 1).to(like.dtype).unsqueeze(0)


class OrderedSteps:
    """One asset after another, with the keys and values of those before it kept."""

    def __init__(self, whole: OrderedConditioner, shape: torch.Size) -> None:
        self.whole, self.shape, self.place = whole, shape, 0
        self.memories: list[Memory] = []
        self.ask, self.tell = (rows(part, shape, 2) for part in (whole.ask, whole.tell))
        self.there = rows(whole.there, shape, 1)

    def next(self, before: Float[Tensor, "..."] | None) -> Float[Tensor, "P ..."]:
        """Parameters of the next asset, given the value of the one before, which is None for the first."""
        i, network = self.place, self.whole.network
        self.place += 1
        if before is None:  # and nothing counts
            dtype = torch.promote_types(self.ask.dtype, torch.float32)
            return self.ask.new_zeros(1 + network.out.out_features, *self.shape, dtype=dtype)
        new = network.memories(self.tell[:, i - 1 : i], before.reshape(-1, 1))
        pairs = zip(self.memories, new, strict=True) if self.memories else ((one,) for one in new)
        self.memories = [
            (torch.cat([keys for keys, _ in pair], -2), torch.cat([values for _, values in pair], -2)) for pair in pairs
        ]
        found = network(self.ask[:, i : i + 1], self.memories, self.there[:, None, :i])
        found = torch.cat((self.whole._flag(self.whole.active[..., i : i + 1], found, self.shape), found))
        return found.reshape(found.shape[0], *self.shape)
