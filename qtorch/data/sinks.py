"""Where a build's large tensors go: to memory, all assets at once, or to disk, some assets after others."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qtorch.data.rows import Rows
from qtorch.data.store import TensorFolder

Block = tuple[slice, Any]  # some assets, and their rows
Codes = Callable[[pd.Series], np.ndarray]  # a column of assets to their numbers, -1 for those without a price
ASSETS = 512  # of a block on disk


class MemorySink:
    """Keeps a panel's tensors in memory."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    @contextmanager
    def blocks(self, rows: Rows, codes: Codes, assets: int, columns: Sequence[str]) -> Iterator[Iterator[Block]]:
        """One block of all assets and rows."""
        yield iter([(slice(0, assets), rows)])

    def put(self, name: str, array: np.ndarray, assets: int) -> None:
        """Takes an array `[T, N, ...]`."""
        self._arrays[name] = array

    def tensor(self, name: str) -> Tensor:
        """The tensor of a name."""
        return torch.from_numpy(self._arrays[name])


class DiskSink:
    """Writes a panel's tensors to a folder, a block of assets after another, each in one piece.

    Rows are sorted into a file a block first, so that any order of the source needs the memory of one block alone. On
    disk the assets come first, `[N, T, ...]`; the tensors are views with the dates first. Pages of the files are never
    mapped while they are written: scattered writes would make the system map and rewrite them by the megabyte.

    Args:
        folder: where the tensors go.
    """

    def __init__(self, folder: TensorFolder) -> None:
        self._folder = folder

    @contextmanager
    def blocks(self, rows: Rows, codes: Codes, assets: int, columns: Sequence[str]) -> Iterator[Iterator[Block]]:
        """Blocks of assets and the rows of each, sorted apart into temporary files beside the tensors."""
        with TemporaryDirectory(dir=self._folder.path) as name:
            spills = [_Spill(Path(name) / f"{first}.arrow") for first in range(0, assets, ASSETS)]
            with ExitStack() as stack:
                for spill in spills:
                    stack.callback(spill.close)
                for _, chunk in rows.chunks(columns):
                    block = codes(chunk["asset"].astype("category")) // ASSETS
                    for at in np.unique(block[block >= 0]):
                        spills[at].write(chunk[block == at])
            bounds = range(0, assets, ASSETS)
            yield (
                (slice(first, min(first + ASSETS, assets)), spill) for first, spill in zip(bounds, spills, strict=True)
            )

    def put(self, name: str, array: np.ndarray, assets: int) -> None:
        """Appends an array `[T, n, ...]` of the next assets."""
        turned = np.ascontiguousarray(np.moveaxis(array, 1, 0))
        self._folder.append(name, turned, assets)

    def tensor(self, name: str) -> Tensor:
        """The tensor of a name, its dates first."""
        return self._folder.read(name).movedim(0, 1)


class _Spill:
    """Rows of a block of assets in a file of Arrow's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def write(self, rows: pd.DataFrame) -> None:
        """Appends rows."""
        import pyarrow as pa

        columns = {}
        for name in rows:
            column = rows[name]
            if isinstance(column.dtype, pd.CategoricalDtype):
                used = column.cat.remove_unused_categories().cat
                names = pa.array(list(map(str, used.categories)), pa.string())
                columns[name] = pa.DictionaryArray.from_arrays(pa.array(used.codes.to_numpy().astype("int32")), names)
            else:
                columns[name] = pa.array(column, from_pandas=True)
        batch = pa.record_batch(columns)
        if self._writer is None:
            self._writer = pa.ipc.new_stream(str(self._path), batch.schema)
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Ends the writing."""
        if self._writer is not None:
            self._writer.close()

    def chunks(self, columns: Sequence[str]) -> Iterator[tuple[int, pd.DataFrame]]:
        """The rows, in the order in which they came."""
        import pyarrow as pa

        if self._writer is None:
            return
        with pa.OSFile(str(self._path)) as file:
            for batch in pa.ipc.open_stream(file):
                yield 0, batch.to_pandas(date_as_object=False)
