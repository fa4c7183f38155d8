"""Chronological training, validation and test windows for Lightning."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import Literal

import lightning
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from qtorch.data.errors import DataError
from qtorch.data.panel import Panel
from qtorch.data.panel_windows import PanelWindowSource
from qtorch.data.rows import label
from qtorch.data.sampling import BucketBatches, By, Source, WindowBatches, sampling_weights
from qtorch.data.window import Window, WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.errors import ArgumentError

_GATHERED = 1 << 23  # bytes of inputs gathered at once
_COUNTED = 1 << 16  # windows whose targets are counted at once
TARGETS = 1 << 17  # of an epoch at most: those of 32 assets over 4,000 sessions, 32 batches of 64 windows of 64


@dataclass(frozen=True)
class Span:
    """The windows of one part of a chronological split.

    Attributes:
        entries: the windows, as of the source's `entries`.
        known_by: the last panel row of the part; targets that become known later are masked. This is the purge:
            no label of one part reaches into the next.
        embargo: and those of this many of an asset's own sessions up to that row.
    """

    entries: Int[Tensor, " K"]
    known_by: int
    embargo: int = 0


def chronological_split(
    source: Source,
    validation_start: str | pd.Timestamp | None,
    test_start: str | pd.Timestamp | None,
    embargo: int = 0,
    until: str | pd.Timestamp | None = None,
) -> tuple[Span, Span, Span]:
    """Splits windows into those for training, validation and test, in the order of time and purged.

    A window belongs to a part if its shortest target is known in it; its longer ones are masked where they are not.

    Args:
        source: the windows.
        validation_start: the first as-of date for validation; None leaves none: what is not test is trained on.
        test_start: the first as-of date for test; None leaves none.
        embargo: sessions of an asset's own between its last label in a part and the next part.
        until: the last as-of date of all; what becomes known later is in no part. None is the panel's last.

    Raises:
        ValueError: the embargo is below 0.
        DataError: the dates are out of order, or a part would have no window.
    """
    if embargo < 0:
        raise ArgumentError(f"embargo must be at least 0 sessions, not {embargo}.")
    dates = source.panel.dates
    T = len(dates) if until is None else source.panel.row(until) + 1
    dates = dates[:T]
    test = _first_row(dates, test_start)
    validation = test if validation_start is None else _first_row(dates, validation_start)
    ordered = validation > 0 and (validation_start is None or validation < min(test, T))
    if not ordered or (test_start is not None and test >= T):
        raise DataError(
            f"validation_start {validation_start} and test_start {test_start} must be in this order and inside the "
            f"panel's dates, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}."
        )
    spans = []
    for first, end in ((0, validation), (validation, test), (test, T)):
        last = min(end, T) - 1
        rest = embargo if last < T - 1 else 0
        spans.append(Span(source.entries(first, known_by=last, embargo=rest), last, rest))
    wanted = {"training": True, "validation": validation_start is not None, "test": test_start is not None}
    for (name, asked), span in zip(wanted.items(), spans, strict=True):
        if asked and not len(span.entries):
            raise DataError(
                f"no window for {name}: the panel runs from {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}, with "
                f"validation from {validation_start} and test from {test_start}. Move the dates, lower the embargo, or "
                "give more history."
            )
    return spans[0], spans[1], spans[2]


def _first_row(dates: pd.DatetimeIndex, start: str | pd.Timestamp | None) -> int:
    """The first row from a date on; the row after the last for None."""
    if start is None:
        return len(dates)
    return int(dates.searchsorted(label(start, "the start of a span")))


class WindowDataset(Dataset[Window]):
    """The windows of a span. A whole batch is one item: it is indexed by a tensor of entries.

    In a loader of torch's with a batch size of its own, it is indexed by numbers from 0 to its length and fetches a
    batch at once too; pass ``collate_fn=whole``.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from qtorch.data import DataModule, Panel, load_sample
        >>> panel = Panel.from_frame(load_sample()).select(["AAPL", "EURUSD"])
        >>> data = DataModule(panel, validation_start="2018-01-02")
        >>> next(iter(DataLoader(data.training_set, batch_size=32, shuffle=True, collate_fn=whole))).inputs.shape
        torch.Size([32, 64, 17])
    """

    def __init__(self, source: Source, span: Span, every_position: bool = False) -> None:
        self.source, self.span, self.every_position = source, span, every_position

    def __getitem__(self, batch: Tensor | tuple[Tensor, int] | Integral) -> Window:
        """The windows of some entries (a tensor, or the pair of one and a context), or one by its number."""
        if isinstance(batch, Integral):
            return self.__getitems__([int(batch)])
        entries, context = batch if isinstance(batch, tuple) else (batch, None)
        span = self.span
        return self.source.gather(
            entries,
            known_by=span.known_by,
            embargo=span.embargo,
            every_position=self.every_position,
            context=context,
        )

    def __getitems__(self, numbers: list[int]) -> Window:
        """The windows of some numbers, as one batch."""
        return self[self.span.entries[torch.as_tensor(numbers, device=self.span.entries.device)]]

    def __len__(self) -> int:
        """How many windows there are."""
        return len(self.span.entries)


def whole(window: Window) -> Window:
    """Leaves a batch that came whole as it is: the ``collate_fn`` of a loader over a `WindowDataset`."""
    return window


class WindowLoader(DataLoader[Window]):
    """A loader whose batches come whole from the dataset.

    Without workers several batches are gathered at once and handed out as views of the whole, because a gather's calls
    take as long for one batch as for many; torch's own machinery for a batch would take longer than the gather.

    Args:
        dataset: the windows.
        batches: which make a batch.
        workers: processes; none are needed.
    """

    def __init__(self, dataset: WindowDataset, batches: WindowBatches | BucketBatches, workers: int = 0) -> None:
        super().__init__(dataset, sampler=batches, batch_size=None, num_workers=workers)
        source = dataset.source
        assets = len(source.panel.assets) if isinstance(source, PanelWindowSource) else 1
        batch = 4 * source.spec.context * len(source.spec.features) * assets * batches.batch_size
        self._windows, self._batches = dataset, batches
        self._at_once = max(1, min(32, _GATHERED // batch))

    def __iter__(self) -> Iterator[Window]:  # type: ignore[override]
        """The batches of one epoch."""
        if self.num_workers:
            yield from super().__iter__()
            return
        if isinstance(self._batches, BucketBatches):  # of different lengths
            yield from map(self._windows.__getitem__, self._batches)
            return
        batches = iter(self._batches)
        while together := list(islice(batches, self._at_once)):
            yield from self._windows[torch.cat(together)].split(self._batches.batch_size)


class DataModule(lightning.LightningDataModule):
    """A panel's windows, split in time, for `lightning.Trainer.fit`.

    Batches are gathered whole on the panel's device: a panel on the GPU (`panel.to("cuda")`) needs no workers.

    Args:
        panel: the market.
        spec: what a window holds; the model's.
        source: the panel's windows, if they have been made already, or those of all assets at once.
        validation_start: first as-of date for validation, which decides when training stops; None has no validation,
            and trains on all before the test.
        test_start: first as-of date for test, None for no test.
        embargo: sessions of an asset's own between its last label in a part and the next part.
        until: the last as-of date of all; what becomes known later is in no part. None is the panel's last.
        batch_size: windows a batch.
        batches_per_epoch: random training batches an epoch, over all processes; ``"targets"`` are so many that a
            target is seen once on average, by the windows that it is in, but no more than `TARGETS` are: a market of
            hundreds of assets trains no longer than one of 32. In panel layout these are rows, whatever the number of
            assets. None takes each window once.
        buckets: take windows of like history together and pad them no further than need be, each once an epoch.
        every_position: train on targets from each session of a window, not from its last alone.
        sample_by: draw training windows alike, each asset alike or each date alike.
        half_life: panel rows after which a training window is drawn half as often; None has no recency.
        workers: processes of the loaders. None are needed: a batch is gathered whole.
        seed: of the random batches.

    Raises:
        ValueError: the source is of another panel or spec, or buckets are asked for with what they exclude.
        DataError: see `chronological_split`.
    """

    def __init__(
        self,
        panel: Panel,
        spec: WindowSpec | None = None,
        *,
        source: Source | None = None,
        validation_start: str | pd.Timestamp | None,
        test_start: str | pd.Timestamp | None = None,
        embargo: int = 0,
        until: str | pd.Timestamp | None = None,
        batch_size: int = 64,
        batches_per_epoch: int | Literal["targets"] | None = "targets",
        buckets: bool = False,
        every_position: bool = True,
        sample_by: By = "window",
        half_life: float | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if source is None:
            source = WindowSource(panel, WindowSpec() if spec is None else spec)
        elif source.panel is not panel or spec not in (None, source.spec):
            raise ArgumentError("the source holds the windows of another panel or spec. Give its own, or leave it out.")
        if buckets and (not isinstance(source, WindowSource) or sample_by != "window" or half_life is not None):
            raise ArgumentError(
                "buckets take each window of one asset once an epoch: leave out sample_by and half_life, and the "
                "windows of all assets."
            )
        self.source, self.spec = source, source.spec
        self.training, self.validation, self.test = chronological_split(
            self.source, validation_start, test_start, embargo, until
        )
        if batches_per_epoch == "targets":
            seen = batch_size * (self.spec.context if every_position else 1)
            batches_per_epoch = max(1, round(min(len(self.training.entries), TARGETS) / seen))
        self.batch_size, self.batches_per_epoch, self.workers = batch_size, batches_per_epoch, workers
        self.weights = sampling_weights(self.source, self.training.entries, sample_by, half_life)
        self.every_position, self.buckets, self.seed = every_position, buckets, seed

    @property
    def training_set(self) -> WindowDataset:
        """The training windows."""
        return WindowDataset(self.source, self.training, self.every_position)

    @property
    def validation_set(self) -> WindowDataset:
        """The validation windows."""
        return WindowDataset(self.source, self.validation)

    @property
    def test_set(self) -> WindowDataset:
        """The test windows."""
        return WindowDataset(self.source, self.test)

    def observations(self) -> float:
        """How many targets training observes, each once however many windows show it, and counted 1/h at horizon h.

        That is how the loss weighs them: h consecutive targets overlap and say little more than one. Masked targets do
        not count. With weights or a half-life windows are drawn unlike one another, but none is observed more.
        """
        entries = self.training.entries.long()
        if self.every_position:
            entries = _sessions_of(entries, self.spec.context)
        source, span = self.source, self.training
        if self.every_position and isinstance(source, WindowSource):  # a young asset's windows begin before its first
            last = (entries + self.spec.context - 1).to(source.table.record.device)
            entries = entries[(source.table.asset[last] >= 0).to(entries.device)]
        count = torch.zeros(len(self.spec.horizons), dtype=torch.float64)
        for part in entries.split(_COUNTED):
            window = source.gather(part, known_by=span.known_by, embargo=span.embargo, context=1)
            known = window.target_mask.flatten(2) if window.target_mask.ndim > 2 else window.target_mask.unsqueeze(-1)
            count += known.sum((0, 2)).cpu()
        return float((count / torch.tensor(self.spec.horizons)).sum())

    def train_dataloader(self) -> WindowLoader:
        """Random batches of training windows."""
        entries, size = self.training.entries, self.batch_size
        if self.buckets and isinstance(self.source, WindowSource):
            return self._loader(self.training_set, BucketBatches(self.source, entries, size, seed=self.seed))
        batches, shuffle = self.batches_per_epoch, self.batches_per_epoch is None
        return self._loader(
            self.training_set,
            WindowBatches(entries, size, batches=batches, shuffle=shuffle, weights=self.weights, seed=self.seed),
        )

    def val_dataloader(self) -> WindowLoader | list[Window]:
        """Each validation window once, in the order of assets and time; no loader where there is no validation."""
        if not len(self.validation.entries):
            return []
        return self._loader(self.validation_set, WindowBatches(self.validation.entries, 4 * self.batch_size))

    def test_dataloader(self) -> WindowLoader:
        """Each test window once, in the order of assets and time."""
        return self._loader(self.test_set, WindowBatches(self.test.entries, 4 * self.batch_size))

    def _loader(self, windows: WindowDataset, batches: WindowBatches | BucketBatches) -> WindowLoader:
        return WindowLoader(windows, batches, self.workers)


def _sessions_of(entries: Int[Tensor, " K"], context: int) -> Int[Tensor, " Q"]:
    """The entries that end at the sessions of some windows, each once; an entry ends one session after that before."""
    first, last = int(entries.min()) - context + 1, int(entries.max())
    edges = torch.zeros(last - first + 2, dtype=torch.int64, device=entries.device)
    one = torch.ones_like(entries)
    edges.index_add_(0, entries - context + 1 - first, one).index_add_(0, entries + 1 - first, -one)
    sessions = (edges.cumsum(0) > 0).nonzero().flatten() + first
    return sessions[sessions >= 0]  # what lies before is padding
