"""Markets made for tests."""

import numpy as np
import pandas as pd

from tests.conftest import make_prices


def make_ohlc(exchanges: dict[str, str], start: str, end: str, seed: int = 0) -> pd.DataFrame:
    """Random walks with open, high, low, volume and realised variance, on the sessions of each asset's exchange."""
    frame = make_prices(exchanges, start, end, seed)
    rng = np.random.default_rng(seed + 1)
    close = frame["close"]
    frame["open"] = close * np.exp(0.004 * rng.standard_normal(len(frame)))
    top, bottom = np.maximum(frame["open"], close), np.minimum(frame["open"], close)
    frame["high"] = top * np.exp(0.005 * rng.random(len(frame)))
    frame["low"] = bottom * np.exp(-0.005 * rng.random(len(frame)))
    frame["volume"] = np.round(1000 * rng.random(len(frame)))
    frame["realised_variance"] = 1e-4 * rng.chisquare(5, len(frame)) / 5
    return frame
