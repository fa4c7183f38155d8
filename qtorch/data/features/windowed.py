"""Weighted and rolling moments along own sessions, for all assets at once; NaN says that there is no value."""

import numpy as np

MOMENTS = ("mean", "std", "skew", "kurtosis")


def ewma(x: np.ndarray, decay: float) -> np.ndarray:
    """Exponentially weighted mean y_i = sum_k decay^k x_{i-k} / sum_k decay^k, over the entries that hold a value.

    Computed by the recursion s_i = decay s_{i-1} + x_i for the sum and for its weights, in float64, by scipy's
    ``lfilter``, which runs it in C for all assets. It is the plain recursion itself: the same operations in the same
    order, so that the error against it is none, and no entry depends on a later one in any bit.

    Args:
        x: `[N, L, F]`, entries along the second axis.
        decay: weight of an entry over that of the next.

    Returns:
        The means, NaN before the first value and where `x` holds none at the entry.
    """
    from scipy.signal import lfilter

    there = ~np.isnan(x)
    total = lfilter([1.0], [1.0, -decay], np.where(there, x, 0.0), axis=1)
    weight = lfilter([1.0], [1.0, -decay], there.astype(float), axis=1)
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=there)


def rolling_moment(x: np.ndarray, window: int, moment: str, min_share: float) -> np.ndarray:
    """A moment over each entry and the `window` - 1 before it.

    Each window is summed by itself around its own mean: running sums would carry the rounding errors of large values
    along, and those of the future to the past if they were centred.

    Args:
        x: `[N, L, F]`, entries along the second axis.
        window: entries.
        moment: one of `MOMENTS`.
        min_share: share of the window that must hold a value.

    Returns:
        The moments, NaN where too few values are there, or `x` holds none at the entry.
    """
    out = np.full(x.shape, np.nan)
    if x.shape[1] < window:
        return out
    for n in range(len(x)):  # an asset at a time: its windows fit a cache
        views = np.lib.stride_tricks.sliding_window_view(x[n], window, axis=0)  # [L - window + 1, F, window]
        there = ~np.isnan(views)
        count = there.sum(-1)
        filled = np.where(there, views, 0.0)
        mean = filled.sum(-1) / np.maximum(count, 1)
        value = mean
        if moment != "mean":
            deviation = np.where(there, filled - mean[..., None], 0.0)
            second = (deviation**2).sum(-1)
            if moment == "std":
                value = np.sqrt(second / np.maximum(count - 1, 1))
            else:
                power = 3 if moment == "skew" else 4
                spread = second / np.maximum(count, 1)
                raised = (deviation**power).sum(-1) / np.maximum(count, 1)
                value = np.divide(raised, spread ** (power / 2), out=np.full_like(raised, np.nan), where=spread > 0)
        enough = (count >= max(2, np.ceil(min_share * window))) & there[..., -1]
        out[n, window - 1 :] = np.where(enough, value, np.nan)
    return out
