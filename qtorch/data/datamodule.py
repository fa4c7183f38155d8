"""Chronological training, validation and test windows for Lightning."""

from collections.abc import Iterator
from dataclasses import dataclass

import lightning
import pandas as pd
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from qtorch.data.errors import DataError
from qtorch.data.panel import Panel
from qtorch.data.windows import Window, WindowSource, WindowSpec


@dataclass(frozen=True)
class Span:
    """The windows of one part of a chronological split.

    Attributes:
        entries: the windows' last sessions, as of `WindowSource.entries`.
        known_by: the last panel row of the part; targets that become known later are masked. This is the purge:
            no label of one part reaches into the next.
    """

    entries: Int64[Tensor, " K"]
    known_by: int


def chronological_split(
    source: WindowSource, validation_start: str | pd.Timestamp, test_start: str | pd.Timestamp | None, embargo: int = 0
) -> tuple[Span, Span, Span]:
    """Splits windows into those for training, validation and test, in the order of time and purged.

    Args:
        source: the windows.
        validation_start: the first as-of date for validation.
        test_start: the first as-of date for test; None leaves none.
        embargo: panel rows left out after the start of validation and of test.

    Raises:
        DataError: the dates are out of order, or training or validation would have no window.
    """
    dates = source.panel.dates
    end = len(dates)
    validation = int(dates.searchsorted(pd.Timestamp(validation_start)))
    test = end if test_start is None else int(dates.searchsorted(pd.Timestamp(test_start)))
    if not 0 < validation < test <= end:
        raise DataError(
            f"validation_start {validation_start} and test_start {test_start} must be in this order and inside the "
            f"panel's dates, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}."
        )
    bounds = ((0, validation), (validation + embargo, test), (test + embargo, end))
    spans = tuple(Span(source.entries(first, last - 1, known_by=last - 1), last - 1) for first, last in bounds)
    for name, span in zip(("training", "validation"), spans, strict=False):
        if not len(span.entries):
            raise DataError(
                f"no window for {name}: the panel runs from {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d} with "
                f"validation from {validation_start}. Move the dates or give more history."
            )
    return spans  # type: ignore[return-value]


class WindowDataset(Dataset[Window]):
    """The windows of a span; indexed by a tensor of entries, it returns a whole batch."""

    def __init__(self, source: WindowSource, span: Span, every_position: bool) -> None:
        self.source, self.span, self.every_position = source, span, every_position

    def __getitem__(self, entries: Int64[Tensor, " B"]) -> Window:
        """The windows that end at some entries."""
        return self.source.gather(entries, known_by=self.span.known_by, every_position=self.every_position)


class RandomBatches(Sampler[Tensor]):
    """A number of batches of entries drawn with replacement; the same in every run for a seed and an epoch."""

    def __init__(self, entries: Int64[Tensor, " K"], batch_size: int, batches: int, seed: int) -> None:
        self.entries, self.batch_size, self.batches, self.seed = entries.cpu(), batch_size, batches, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        """Batches of one epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        for _ in range(self.batches):
            yield self.entries[torch.randint(len(self.entries), (self.batch_size,), generator=generator)]

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.batches


class DataModule(lightning.LightningDataModule):
    """A panel's windows, split in time, for `lightning.Trainer.fit`.

    Batches are gathered whole on the panel's device: a panel on the GPU (`panel.to("cuda")`) needs no workers.

    Args:
        panel: the market.
        spec: what a window holds; the model's.
        source: the panel's windows, if they have been made already.
        validation_start: first as-of date for validation, which decides when training stops.
        test_start: first as-of date for test, None for no test.
        embargo: panel rows left out after the start of validation and of test.
        batch_size: windows a batch.
        batches_per_epoch: random training batches an epoch.
        every_position: train on targets from each session of a window, not from its last alone.
        seed: of the random batches.

    Raises:
        DataError: see `chronological_split`.
    """

    def __init__(
        self,
        panel: Panel,
        spec: WindowSpec | None = None,
        *,
        source: WindowSource | None = None,
        validation_start: str | pd.Timestamp,
        test_start: str | pd.Timestamp | None = None,
        embargo: int = 0,
        batch_size: int = 64,
        batches_per_epoch: int = 40,
        every_position: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.spec = WindowSpec() if spec is None else spec
        self.source = WindowSource(panel, self.spec) if source is None else source
        self.training, self.validation, self.test = chronological_split(
            self.source, validation_start, test_start, embargo
        )
        self.batch_size, self.batches_per_epoch = batch_size, batches_per_epoch
        self.every_position, self.seed = every_position, seed

    def train_dataloader(self) -> DataLoader:
        """Random batches of training windows."""
        batches = RandomBatches(self.training.entries, self.batch_size, self.batches_per_epoch, self.seed)
        return self._loader(self.training, batches, self.every_position)

    def val_dataloader(self) -> DataLoader:
        """Each validation window once, in the order of assets and time."""
        return self._loader(self.validation, self.validation.entries.split(4 * self.batch_size))

    def test_dataloader(self) -> DataLoader:
        """Each test window once, in the order of assets and time."""
        return self._loader(self.test, self.test.entries.split(4 * self.batch_size))

    def _loader(self, span: Span, batches: object, every_position: bool = False) -> DataLoader:
        return DataLoader(WindowDataset(self.source, span, every_position), sampler=batches, batch_size=None)  # type: ignore[arg-type]
