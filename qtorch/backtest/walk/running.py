"""Runs the refits of a walk: one after the other, or at once where none needs another."""

import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import pandas as pd
from tqdm.std import tqdm

from qtorch.backtest.walk.refitting import Refitting, Weights
from qtorch.backtest.walk.workers import packed
from qtorch.errors import BriefInNotebooks
from qtorch.forecast import Forecast

Progress = bool | Literal["auto"]


class RefitError(BriefInNotebooks, RuntimeError):
    """A refit of a walk failed; the message says which, and why.

    Attributes:
        date: of the refit.
        seed: of the model.
    """

    def __init__(self, message: str, date: pd.Timestamp, seed: int) -> None:
        super().__init__(message)
        self.date, self.seed = date, seed

    def __reduce__(self) -> tuple[type["RefitError"], tuple[str, pd.Timestamp, int]]:
        """What another process makes it of: an exception alone would be made of its message."""
        return type(self), (str(self), self.date, self.seed)


def run(
    refitting: Refitting,
    chains: Sequence[tuple[int, Sequence[tuple[int, int]]]],
    executor: Executor | None,
    progress: Progress,
) -> list[list[Forecast | Weights]]:
    """What the refits of some chains give, each of which starts from the weights of the one before in its chain.

    Args:
        refitting: what a refit does.
        chains: a seed and spans of rows each: that of the refit, and that after its last date.
        executor: runs the chains at once; None runs one after the other in this process.
        progress: show a bar; ``"auto"`` does in terminals and notebooks.

    Raises:
        RefitError: a refit failed. Those that run beside it are waited for by the executor; none is begun after it.
    """
    elsewhere = partial(packed, refitting)
    results: list[list[Forecast | Weights]] = [[] for _ in chains]
    weights: list[Any] = [None] * len(chains)
    ready, running = deque(range(len(chains))), dict[Future, int]()

    def place(c: int) -> tuple[int, int, int, Any]:
        """Of the next refit of a chain."""
        seed, spans = chains[c]
        return *spans[len(results[c])], seed, weights[c]

    with _bar(sum(len(spans) for _, spans in chains), progress) as advance:
        while ready or running:
            done: list[tuple[int, Future | None]]
            if executor is None:
                done = [(ready.popleft(), None)]
            else:
                while ready:
                    c = ready.popleft()
                    running[executor.submit(elsewhere, *place(c))] = c
                finished = wait(running, return_when=FIRST_COMPLETED).done  # a set, of no order
                done = [(running.pop(future), future) for future in list(running) if future in finished]
            for c, future in done:
                row, _, seed, _ = place(c)
                date = refitting.panel.dates[row]
                try:
                    # What is unpickled comes from a process of our own, not from a file.
                    given = refitting(*place(c)) if future is None else pickle.loads(future.result())  # noqa: S301
                except Exception as error:
                    for other in running:
                        other.cancel()
                    raise RefitError(_said(refitting, date, seed, error), date, seed) from error
                result, weights[c] = given
                results[c].append(result)
                advance(date)
                if len(results[c]) < len(chains[c][1]):
                    ready.append(c)
    return results


def _said(refitting: Refitting, date: pd.Timestamp, seed: int, error: Exception) -> str:
    kept = (
        "Name a folder= to keep what is finished."
        if refitting.folder is None
        else f"What is finished is kept in {refitting.folder}: the same call goes on from there."
    )
    return f"the refit at {date:%Y-%m-%d}, seed {seed}, failed with {type(error).__name__}: {error} {kept}"


@contextmanager
def _bar(total: int, progress: Progress) -> Iterator[Callable[[pd.Timestamp], None]]:
    """A bar that is told the date of each refit done.

    Of text alone, so that a notebook needs no widgets for it.
    """
    shown = progress if isinstance(progress, bool) else sys.stderr.isatty() or "ipykernel" in sys.modules
    with tqdm(total=total, desc="refits", disable=not shown) as bar:

        def advance(date: pd.Timestamp) -> None:
            bar.set_postfix_str(f"{date:%Y-%m-%d}", refresh=False)
            bar.update()

        yield advance
