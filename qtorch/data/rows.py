"""Where rows of prices come from: a frame of any accepted layout, or Parquet read in chunks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qtorch.data.errors import DataError, listing

PRICES = ("open", "high", "low", "close")
FIELDS = (*PRICES, "volume", "realised_variance")
ACTIONS = ("adj_close", "split", "dividend")
KEYS = ("date", "asset", "exchange", "known_at")
CHUNK = 1 << 19  # rows held at once while Parquet is read


class FrameRows:
    """Rows of a long frame, a frame indexed by (date, asset) or (datetime, instrument), or wide closes.

    Rows can be read more than once, a chunk at a time. A chunk has the columns that are there of those asked for, and
    `row`, the position in what the user gave. Within a part, the rows of an asset should be in the order of time.

    Raises:
        DataError: the frame is empty, or of none of these layouts.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        if frame.empty:
            raise DataError("the frame is empty: no row to build a panel from.")
        self._frame = _long(frame)
        self.columns = list(self._frame.columns)

    def chunks(self, columns: Sequence[str]) -> Iterator[tuple[int, pd.DataFrame]]:
        """The whole frame, as one chunk."""
        yield 0, self._frame[[*(name for name in columns if name in self._frame), "row"]]

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._frame)


@dataclass(frozen=True)
class ParquetRows:
    """Rows of a Parquet file or of a hive-partitioned dataset, between two dates, inclusive.

    Each file is a part: rows need to be in order within a file, not over the dataset.
    """

    path: str | Path
    start: str | pd.Timestamp | None = None
    end: str | pd.Timestamp | None = None

    @cached_property
    def _dataset(self) -> Any:
        import pyarrow.dataset as ds

        if not Path(self.path).exists():
            raise DataError(f"{self.path}: no such file or folder.")
        with _readable(self.path):
            dataset = ds.dataset(self.path, partitioning="hive")
        names = dataset.schema.names
        missing = [name for name in ("date", "asset", "close") if name not in names]
        if missing:
            raise DataError(
                f"{self.path}: no column {listing(map(repr, missing))}; its columns are {listing(names, most=20)}."
            )
        return dataset

    @cached_property
    def _condition(self) -> Any:
        import pyarrow as pa
        import pyarrow.dataset as ds

        kind = self._dataset.schema.field("date").type
        condition = None
        for bound, compare in ((self.start, "__ge__"), (self.end, "__le__")):
            if bound is not None:
                with _readable(self.path):
                    test = getattr(ds.field("date"), compare)(pa.scalar(pd.Timestamp(bound)).cast(kind))
                condition = test if condition is None else condition & test
        return condition

    @cached_property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._dataset.schema.names)

    def chunks(self, columns: Sequence[str]) -> Iterator[tuple[int, pd.DataFrame]]:
        """The rows in chunks; `row` counts those between the dates, in the order of the files."""
        import pyarrow.types as kinds

        wanted = [name for name in columns if name in self.columns]
        first = 0
        for part, fragment in enumerate(self._dataset.get_fragments(self._condition)):
            scanner = fragment.scanner(
                schema=self._dataset.schema,
                columns=wanted,
                filter=self._condition,
                batch_size=CHUNK,
                batch_readahead=2,
                fragment_readahead=1,
            )
            with _readable(self.path):
                for batch in scanner.to_batches():
                    if not batch.num_rows:
                        continue
                    for i, name in enumerate(batch.schema.names):
                        kind = batch.schema.field(i).type
                        if name in ("asset", "exchange") and not kinds.is_dictionary(kind):
                            batch = batch.set_column(i, name, batch.column(i).dictionary_encode())
                    frame = batch.to_pandas(date_as_object=False)
                    frame["row"] = np.arange(first, first + len(frame))
                    first += len(frame)
                    yield part, frame

    def __len__(self) -> int:
        """How many rows there are between the dates."""
        with _readable(self.path):
            return int(self._dataset.count_rows(filter=self._condition))

    def frame(self) -> pd.DataFrame:
        """All rows as one frame, of the columns that a panel can use."""
        wanted = [name for name in (*KEYS, *FIELDS, *ACTIONS) if name in self.columns]
        with _readable(self.path):
            return self._dataset.to_table(columns=wanted, filter=self._condition).to_pandas(date_as_object=False)


Rows = FrameRows | ParquetRows


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    """Says which file is broken when Arrow cannot read it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}). Write or copy it again.") from error


def _long(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of the frame in long layout, its index gone, with the position of each row."""
    if isinstance(frame.index, pd.MultiIndex):
        names = list(frame.index.names)
        ours: dict[Any, str] = {"date": "date", "datetime": "date", "asset": "asset", "instrument": "asset"}
        if sorted(ours.get(name, "") for name in names) != ["asset", "date"]:
            raise DataError(f"a MultiIndex must be (date, asset) or qlib's (datetime, instrument), not {names}.")
        frame = frame.rename_axis([ours[name] for name in names]).reset_index()
        frame.columns = [str(name).removeprefix("$") for name in frame.columns]  # qlib's fields are $close, ...
    elif isinstance(frame.index, pd.DatetimeIndex) and "close" not in frame.columns:
        wide = frame.rename_axis(index="date", columns="asset")
        frame = wide.melt(ignore_index=False, value_name="close").reset_index()
        return frame.assign(row=np.tile(np.arange(len(wide)), wide.shape[1]))
    missing = [name for name in ("date", "asset", "close") if name not in frame]
    if missing:
        raise DataError(f"no column {listing(map(repr, missing))}; the frame has {listing(frame.columns, most=20)}.")
    return frame.reset_index(drop=True).assign(row=np.arange(len(frame)))
