"""Sums of products over pairs of assets, over windows and with exponential weights, at several rows of a panel."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.portfolio.graphs.returns import LONGEST, NEVER, Returns

BLOCK = 32  # rows whose sums are made once; they begin at the panel's rows 0, 32, 64, ...
MEMORY = 32  # half-lives after which a row is forgotten: it weighs 2e-10


@dataclass(frozen=True, eq=False)
class Sums:
    """Weighted sums over rows t, which are added to in place.

    With x the returns, m where there is one, w the weights, k_j(t) whether j has a return at t, or no price but a
    return under way, and f_j(t) the return under way:

    Attributes:
        pairs: over t, for assets i and j: `w m_i k_j`, `w^2 m_i k_j`, `w x_i k_j`, `w x_i^2 k_j`, `w x_i x_j`; and if
            intervals are matched `w m_i m_j`, `w x_i f_j` where j has no price at t, and where it has one.
        own: of the assets' session returns u: `w m`, `w^2 m`, `w u`, `w u^2`.
    """

    pairs: Float64[Tensor, "P N N"]
    own: Float64[Tensor, "4 N"]

    @classmethod
    def none(cls, data: Returns, matched: bool) -> "Sums":
        """The sums over no row."""
        N = data.value.shape[1]
        return cls(data.value.new_zeros(8 if matched else 5, N, N), data.value.new_zeros(4, N))

    def copy(self) -> "Sums":
        """Sums that can be added to without changing these."""
        return Sums(self.pairs.clone(), self.own.clone())

    def add(self, other: "Sums") -> None:
        """Adds the sums over other rows."""
        self.pairs.add_(other.pairs)
        self.own.add_(other.own)

    def fade(self, decay: float) -> None:
        """Multiplies all weights."""
        for values in (self.pairs, self.own):
            values.mul_(decay)
            values[1].mul_(decay)

    def add_rows(self, data: Returns, first: int, last: int, known_at: int, decay: float = 1.0) -> None:
        """Adds the panel's rows `first` to `last`, the last of which weighs 1, as they are known at a row."""
        at = slice(first - data.first, last + 1 - data.first)
        x, m = data.value[at], data.mask[at].double()
        w = decay ** torch.arange(len(x) - 1, -1, -1, dtype=torch.float64, device=x.device)[:, None]
        k, wx = m, w * x
        crosses = []
        if len(self.pairs) > 5:
            known = data.known[at] <= known_at
            f = torch.where(known, data.following[at], 0.0)
            observed = data.observed[at]
            k = torch.logical_or(data.mask[at], torch.logical_and(known, ~observed)).double()
            crosses = [(w * m, m), (wx, torch.where(observed, 0.0, f)), (wx, torch.where(observed, f, 0.0))]
        products = [(w * m, k), (w * w * m, k), (wx, k), (wx * x, k), (wx, x), *crosses]
        for total, (left, right) in zip(self.pairs, products, strict=True):
            total.addmm_(left.T, right)
        u, session = data.session[at], data.session_mask[at].double()
        own = [w * session, w * w * session, w * u, w * u**2]
        self.own.add_(torch.stack([each.sum(0) for each in own]))


def rolling_sums(data: Returns, rows: Sequence[int], window: int, matched: bool) -> Iterator[Sums]:
    """The sums over the last `window` rows up to each of some rows, ascending; blocks are shared by windows.

    Which other rows are asked for changes no bit of the sums at one.
    """
    blocks: dict[int, Sums] = {}
    for row in rows:
        total = Sums.none(data, matched)
        first = max(row - window + 1, data.first)
        begin, end = -(-first // BLOCK), (row - LONGEST + 1) // BLOCK  # blocks in which nothing is under way at `row`
        blocks = {b: kept for b, kept in blocks.items() if b >= begin}
        if begin < end:
            total.add_rows(data, first, begin * BLOCK - 1, NEVER - 1)
            for b in range(begin, end):
                if b not in blocks:
                    blocks[b] = Sums.none(data, matched)
                    blocks[b].add_rows(data, b * BLOCK, (b + 1) * BLOCK - 1, NEVER - 1)
                total.add(blocks[b])
            first = end * BLOCK
        total.add_rows(data, first, row, row)
        yield total


def ewma_sums(data: Returns, rows: Sequence[int], decay: float, matched: bool) -> Iterator[Sums]:
    """The sums with weights `decay^(row - t)` up to each of some rows, ascending, by their recursion over blocks."""
    place, settled = data.first, Sums.none(data, matched)  # the sums over the rows before the place
    for row in rows:
        end = max((row - LONGEST + 1) // BLOCK * BLOCK, place)
        for first in range(place, end, BLOCK):
            settled.fade(decay**BLOCK)
            settled.add_rows(data, first, first + BLOCK - 1, NEVER - 1, decay)
        place, total = end, settled.copy()
        total.fade(decay ** (row - place + 1))
        total.add_rows(data, place, row, row, decay)
        yield total
