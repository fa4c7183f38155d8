"""Which windows make a batch: in order or at random, by asset or by date, of like length, the same for every seed."""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float64, Int
from torch import Tensor
from torch.utils.data.distributed import DistributedSampler

from qtorch.data.panel_windows import PanelWindowSource
from qtorch.data.windows import WindowSource
from qtorch.errors import ArgumentError

_PIECE = 1 << 22  # windows looked at at once

By = Literal["window", "asset", "date"]
Source = WindowSource | PanelWindowSource


class WindowBatches(DistributedSampler[Tensor]):
    """Batches of entries, each a tensor, for a loader with ``batch_size=None``.

    One stream of batches is drawn from the seed and the epoch, whatever the number of processes; of `replicas`
    processes, `rank` takes every replicas-th batch. Workers of a loader do not draw: the sampler runs in the main
    process. So the same seed gives the same batches on one device, on many, and under any number of workers.

    Args:
        entries: the windows to draw from.
        batch_size: windows a batch.
        batches: random batches an epoch over all processes, drawn with replacement; None takes each window once.
        shuffle: in random order, when each is taken once.
        weights: of the windows in random batches; None weighs them alike. See `sampling_weights`.
        seed: of everything random.
        replicas: processes; None asks torch.distributed, where it runs.
        rank: of this process; None asks too.

    Raises:
        ValueError: no window, a batch size or a number of batches below 1, weights without `batches` or not one a
            window or not finite, or a rank outside the replicas.
    """

    def __init__(
        self,
        entries: Int[Tensor, " K"],
        batch_size: int,
        *,
        batches: int | None = None,
        shuffle: bool = False,
        weights: Float64[Tensor, " K"] | None = None,
        seed: int = 0,
        replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        if not len(entries) or batch_size < 1 or (batches is not None and batches < 1):
            raise ArgumentError(
                f"there must be a window, not {len(entries)}; batch_size and batches must be at least 1, not "
                f"{batch_size} and {batches}."
            )
        if weights is not None and (batches is None or weights.shape != entries.shape):
            raise ArgumentError("weights need one number a window, and a number of batches to draw with them.")
        if weights is not None and not (weights.isfinite().all() and (weights >= 0).all() and weights.any()):
            raise ArgumentError("weights must be finite, not negative, and not all 0.")
        if rank is not None and not 0 <= rank < (replicas or 1):
            raise ArgumentError(f"rank {rank} is outside 0..{(replicas or 1) - 1}.")
        self.entries, self.batch_size, self.batches, self.shuffle, self.seed = (
            entries.cpu(),
            batch_size,
            batches,
            shuffle,
            seed,
        )
        self._cumulative = None if weights is None else weights.cpu().cumsum(0)
        self._replicas, self._rank = replicas, rank
        self.epoch = 0

    def _place(self) -> tuple[int, int]:
        """The rank of this process and the number of processes."""
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        replicas = (torch.distributed.get_world_size() if running else 1) if self._replicas is None else self._replicas
        return (torch.distributed.get_rank() if running else 0) if self._rank is None else self._rank, replicas

    def __iter__(self) -> Iterator[Tensor]:
        """This process's batches of one epoch; Lightning calls `set_epoch` before each."""
        rank, replicas = self._place()
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        batches = self._in_turn(generator) if self.batches is None else self._drawn(generator)
        # All processes need the same number of batches; the few that are left over begin the stream anew.
        total = self._total()
        missing = -total % replicas
        held = []
        for i, batch in enumerate(batches):
            if i < missing:
                held.append(batch)
            if i % replicas == rank:
                yield batch
        for i in range(missing):
            if (total + i) % replicas == rank:
                yield held[i % len(held)]

    def __len__(self) -> int:
        """This process's batches an epoch."""
        return -(-self._total() // self._place()[1])

    def _total(self) -> int:
        return -(-len(self.entries) // self.batch_size) if self.batches is None else self.batches

    def _in_turn(self, generator: torch.Generator) -> Iterator[Tensor]:
        entries = self.entries
        if self.shuffle:
            entries = entries[torch.randperm(len(entries), generator=generator)]
        yield from entries.split(self.batch_size)

    def _drawn(self, generator: torch.Generator) -> Iterator[Tensor]:
        assert self.batches is not None
        at_once = max(1, 65536 // self.batch_size)  # numbers are drawn for many batches at once: a call costs as much
        for first in range(0, self.batches, at_once):
            count = min(at_once, self.batches - first) * self.batch_size
            if self._cumulative is None:
                at = torch.randint(len(self.entries), (count,), generator=generator)
            else:
                level = torch.rand(count, generator=generator, dtype=torch.float64) * self._cumulative[-1]
                at = torch.searchsorted(self._cumulative, level, right=True).clamp(max=len(self.entries) - 1)
            yield from self.entries.index_select(0, at).split(self.batch_size)


class BucketBatches(DistributedSampler[tuple[Tensor, int]]):
    """Batches of windows of like history, each with the context that its longest needs: young assets pad little.

    Each window is taken once, in random order; batches come from one bucket each, in random order too.

    Args:
        source: the windows.
        entries: those to draw from.
        batch_size: windows a batch.
        buckets: upper bounds of usable sessions; the spec's context is always one. None halves it down to 1/8.
        seed: of everything random.
        replicas: as of `WindowBatches`.
        rank: as of `WindowBatches`.
    """

    def __init__(
        self,
        source: WindowSource,
        entries: Int[Tensor, " K"],
        batch_size: int,
        *,
        buckets: tuple[int, ...] | None = None,
        seed: int = 0,
        replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        C = source.spec.context
        bounds = tuple(max(1, C // 2**k) for k in (3, 2, 1, 0)) if buckets is None else (*buckets, C)
        self.bounds = tuple(sorted({bound for bound in bounds if bound <= C}))
        if self.bounds[0] < 1 or batch_size < 1:
            raise ArgumentError(f"buckets and batch_size must be at least 1, not {bounds} and {batch_size}.")
        table = source.table
        position = entries.long() + C - 1
        usable = position - table.start[table.asset[position].long()] - source.spec.features.first_usable + 1
        place = torch.searchsorted(torch.tensor(self.bounds, device=usable.device), usable.clamp(max=C)).cpu()
        self._buckets = [entries.cpu()[place == k] for k in range(len(self.bounds))]
        self.batch_size, self.seed = batch_size, seed
        self._order = WindowBatches(
            torch.arange(sum(-(-len(bucket) // batch_size) for bucket in self._buckets)),
            1,
            shuffle=True,
            seed=seed,
            replicas=replicas,
            rank=rank,
        )
        self.epoch = 0

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        """This process's batches of one epoch, each with its context."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        batches = []
        for bound, bucket in zip(self.bounds, self._buckets, strict=True):
            shuffled = bucket[torch.randperm(len(bucket), generator=generator)]
            batches += [(part, bound) for part in shuffled.split(self.batch_size) if len(part)]
        self._order.set_epoch(self.epoch)
        for at in self._order:
            yield batches[int(at)]

    def __len__(self) -> int:
        """This process's batches an epoch."""
        return len(self._order)


def sampling_weights(
    source: Source, entries: Int[Tensor, " K"], by: By = "window", half_life: float | None = None
) -> Float64[Tensor, " K"] | None:
    """Weights with which windows are drawn.

    Args:
        source: the windows.
        entries: those to draw from.
        by: ``window`` weighs all alike, ``asset`` each asset alike whatever its history, ``date`` each date alike
            whatever the number of assets.
        half_life: panel rows after which a window counts half; None has no recency.

    Returns:
        Weights, or None where all are alike.

    Raises:
        ValueError: an unknown `by`, or a half-life that is not positive.
    """
    if by not in ("window", "asset", "date") or (half_life is not None and half_life <= 0):
        raise ArgumentError(f"by must be window, asset or date, not {by!r}; half_life positive, not {half_life}.")
    if by == "window" and half_life is None:
        return None
    if by == "asset" and isinstance(source, PanelWindowSource):
        raise ArgumentError("windows in panel layout hold all assets, so that there is none to weigh by.")
    T, N = len(source.panel.dates), len(source.panel.assets)

    def places() -> Iterator[tuple[Tensor, Tensor]]:
        """Rows and columns, a piece at a time: nothing but the weights is as long as the entries."""
        return map(source.places, entries.split(_PIECE))

    on_row, of_asset = (torch.zeros(n, dtype=torch.int64, device=entries.device) for n in (T, N))
    for row, asset in places():
        on_row += row.bincount(minlength=T)
        if by == "asset":
            of_asset += asset.bincount(minlength=N)
    row_weight = 1.0 / on_row.double() if by == "date" else torch.ones_like(on_row, dtype=torch.float64)
    asset_weight = 1.0 / of_asset.double() if by == "asset" else torch.ones_like(of_asset, dtype=torch.float64)
    if half_life is not None:
        age = on_row.nonzero().max() - torch.arange(T, dtype=torch.float64, device=entries.device)
        row_weight *= 0.5 ** (age / half_life)
    return torch.cat([row_weight[row] * asset_weight[asset] for row, asset in places()])
