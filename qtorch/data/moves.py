"""Moves of a price that are out of the usual: how large the usual ones are, and which look like a split."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

NEIGHBOURHOOD, ENOUGH = 64, 16  # prices over which the usual move is measured, and the fewest moves that tell it
BACK = 0.25  # a move is taken back when at most this share of it is left after the next price
HISTORY, BUSY = 20, 3.0  # prices that tell the usual trading, and the multiple of it beyond which there was news
SPLITS = [(3, 2), (2, 1), (5, 2), *((n, 1) for n in (3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 40, 50, 100))]


def usual_move(move: np.ndarray) -> np.ndarray:
    """The standard deviation of an asset's moves around each of them, robust to the large ones.

    1.4826 times the median absolute move of a block of 64 prices, the greatest of the block's and its two neighbours',
    so that the first day of a turbulent month is not measured by the calm before. Unchanged prices count for nothing:
    they don't say how far a price goes when it moves. An asset with too few moves in a neighbourhood has the median
    of all its moves there.

    Args:
        move: log returns, `[N, K]`, NaN where none.

    Returns:
        `[N, K]`; NaN for an asset with fewer than 16 moves.
    """
    N, K = move.shape
    size = np.abs(move)
    size[size == 0] = np.nan
    blocks = np.pad(size, ((0, 0), (0, -K % NEIGHBOURHOOD)), constant_values=np.nan).reshape(N, -1, NEIGHBOURHOOD)
    local = np.pad(_median(blocks), ((0, 0), (1, 1)), constant_values=np.nan)
    local = np.fmax(np.fmax(local[:, :-2], local[:, 1:-1]), local[:, 2:])
    scale = np.repeat(local, NEIGHBOURHOOD, axis=1)[:, :K]
    sparse = np.isnan(scale).any(axis=1)
    scale[sparse] = np.where(np.isnan(scale[sparse]), _median(size[sparse])[:, None], scale[sparse])
    return 1.4826 * scale


def taken_back(move: np.ndarray) -> np.ndarray:
    """Whether the next price takes back three quarters of a move or more, `[N, K]`."""
    back = np.zeros(move.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        back[:, :-1] = np.abs(move[:, :-1] + move[:, 1:]) <= BACK * np.abs(move[:, :-1])
    return back


def splits(
    fields: Mapping[str, np.ndarray], move: np.ndarray, usual: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The moves that look like a split that the prices are not adjusted for.

    Such a move is a ratio of small whole numbers, up to three usual moves (at least 2 %, at most 8 %); it happens
    overnight where there is an open, and the day after it is like others; it stays; and trading is as usual, in
    shares or in turnover. Bad news halves a price too, but not quietly.

    Args:
        fields: ``close``, and ``open`` and ``volume`` where known, `[N, K]`: an asset's k-th price in column k.
        move: log returns from the price before, `[N, K]`.
        usual: the standard deviation of each, `[N, K]`; NaN where unknown.

    Returns:
        The asset and the number of each price on the first day after the split, and what it looks like in words.
    """
    ratios = np.log([many / one for many, one in SPLITS])
    back = taken_back(move)
    stays = ~back
    stays[:, 1:] &= ~back[:, :-1]
    with np.errstate(invalid="ignore"):
        n, k = np.nonzero(stays & (np.abs(move) > 0.8 * ratios[0]))
    total, typical = move[n, k], np.nan_to_num(usual[n, k])
    before = fields["close"][n, k - 1]
    opened = fields["open"][n, k] if "open" in fields else np.full(len(n), np.nan)
    # An open that repeats the close before is a vendor's filling and says nothing about the night.
    night = np.where(np.isnan(opened) | (opened == before), total, np.log(opened / before))
    nearest = np.abs(np.abs(night)[:, None] - ratios).argmin(axis=1)
    alike = np.abs(np.abs(night) - ratios[nearest]) <= np.clip(3 * typical, 0.02, 0.08)
    alike &= np.abs(night) > 5 * typical
    alike &= np.abs(total - night) <= np.maximum(5 * typical, 0.05)
    busy = _busy(fields, n, k)
    alike &= ~(busy > BUSY)
    detail = []
    for total_, night_, ratio, busy_ in zip(total[alike], night[alike], nearest[alike], busy[alike], strict=True):
        many, one = SPLITS[ratio]
        text = f"{many}-for-{one}" if total_ < 0 else f"{one}-for-{many}"
        text += f" split suspected: close x {np.exp(total_):.3g}"
        text += f", overnight x {np.exp(night_):.3g}" if night_ != total_ else ""
        detail.append(text + (f", trading x {busy_:.2g}" if np.isfinite(busy_) else ""))
    return n[alike], k[alike], detail


def _busy(fields: Mapping[str, np.ndarray], n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Trading as a multiple of the usual, in shares or in turnover, the smaller; NaN where unknown.

    A split multiplies the shares and not the turnover, or, where the vendor adjusted the volume alone, the turnover
    and not the shares; so the smaller of the two is what a split leaves as it was.
    """
    busy = np.full(len(n), np.nan)
    if "volume" not in fields or not len(n):
        return busy
    past = np.maximum(k[:, None] - np.arange(HISTORY + 1), 0)  # today first
    volume, close = fields["volume"][n[:, None], past], fields["close"][n[:, None], past]
    volume = np.where(volume > 0, volume, np.nan)
    for traded in (volume, volume * close):
        busy = np.fmin(busy, traded[:, 0] / pd.DataFrame(traded[:, 1:]).median(axis=1).to_numpy())
    return busy


def _median(values: np.ndarray) -> np.ndarray:
    """The lower median along the last axis, NaN apart; NaN where there are fewer than `ENOUGH`."""
    ranked = np.sort(values, axis=-1)  # NaN last
    count = (~np.isnan(values)).sum(axis=-1, keepdims=True)
    median = np.take_along_axis(ranked, np.maximum(count - 1, 0) // 2, axis=-1)
    return np.where(count < ENOUGH, np.nan, median)[..., 0]
