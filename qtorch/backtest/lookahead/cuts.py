"""Where a panel is cut: evenly, at random, and where prices are missing."""

import numpy as np

from qtorch.backtest.lookahead.markets import holes
from qtorch.data import Panel


def cut_rows(panel: Panel, first: int, last: int, count: int, seed: int) -> list[int]:
    """Rows to cut after, ascending: a third evenly, a third at random, a third where an asset waits for its next price.

    A back-fill knows the future only there.

    Args:
        panel: the market.
        first: the earliest row.
        last: the latest row.
        count: how many; fewer if there are not so many rows.
        seed: of the draws.
    """
    rows = np.arange(first, last + 1)
    count = min(count, len(rows))
    chosen = set(waiting_rows(panel, first, last, count // 3, seed))
    even = np.linspace(first, last, max(1, count // 3)).round().astype(int)
    for row in [*even.tolist(), *np.random.default_rng(seed).permutation(rows).tolist()]:
        if len(chosen) < count:
            chosen.add(int(row))
    return sorted(chosen)


def waiting_rows(panel: Panel, first: int, last: int, count: int, seed: int) -> list[int]:
    """Rows from `first` to `last` where an asset has no price and gets one later, ascending; fewer if there are fewer.

    They are taken in turn from faults of the data, closed exchanges and assets that are not listed yet.
    """
    rng = np.random.default_rng(seed)
    kinds = [rng.permutation(there[(there >= first) & (there <= last)]).tolist() for there in holes(panel).values()]
    chosen: set[int] = set()
    while any(kinds) and len(chosen) < count:
        for kind in kinds:
            if kind and len(chosen) < count:
                chosen.add(int(kind.pop()))
    return sorted(chosen)
