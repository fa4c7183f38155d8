"""Random walks of prices on the real calendars of five exchanges, for benchmarks of any size."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

EXCHANGES = ("XNYS", "XLON", "XTKS", "XPAR", "XHKG")


def walks(assets: int, years: int) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Each asset's name, exchange, sessions that have a price (99 % of them, ``datetime64[s]``) and closes."""
    from qtorch.data import sessions

    rng = np.random.default_rng(0)
    end = pd.Timestamp("2022-12-30")
    start = end - pd.DateOffset(years=years)
    days = {code: sessions(code, start, end).days for code in EXCHANGES}
    days = {code: of[of <= end].to_numpy().astype("M8[s]") for code, of in days.items()}
    for n in range(assets):
        code = EXCHANGES[n % len(EXCHANGES)]
        kept = days[code][rng.random(len(days[code])) > 0.01]
        yield f"A{n:05d}", code, kept, 50 * np.exp(np.cumsum(0.015 * rng.standard_normal(len(kept))))
