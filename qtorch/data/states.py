"""What a panel's cell says: a price, a holiday, a fault, or no listing."""

from collections.abc import Mapping, Sequence
from enum import IntEnum

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

_ROWS = 512  # rows handled at once, so that no whole panel of integers is made


class State(IntEnum):
    """Why a panel's cell holds a price or not."""

    UNLISTED = 0  # before the asset's first or after its last price
    CLOSED = 1  # the exchange has no session
    MISSING = 2  # a session without a price: a halt or a fault of the data
    OBSERVED = 3  # a price is there


def states(
    observed: Bool[Tensor, "T N"],
    exchange_is_session: Bool[Tensor, "T X"],
    exchange_index: Sequence[int],
    last_row: np.ndarray | None = None,
) -> UInt8[Tensor, "T N"]:
    """The state of each cell.

    Args:
        observed: where a price is there.
        exchange_is_session: which rows bring a session of which exchange.
        exchange_index: the exchange of each asset.
        last_row: the last row on which each asset is listed, where that is known; None takes the last price's.
    """
    T, N = observed.shape
    listed = torch.zeros(N, dtype=torch.bool)
    last = torch.from_numpy(last_price(observed) if last_row is None else last_row)
    state = torch.empty(T, N, dtype=torch.uint8)
    columns = torch.as_tensor(exchange_index)
    for t in range(0, T, _ROWS):
        block = slice(t, min(t + _ROWS, T))
        there = observed[block].cpu()
        begun = there.cummax(0).values | listed
        listed = begun[-1]
        session = exchange_is_session[block].cpu()[:, columns]
        cell = torch.where(session, int(State.MISSING), int(State.CLOSED))
        inside = begun & (torch.arange(block.start, block.stop)[:, None] <= last)
        cell = torch.where(inside, cell, int(State.UNLISTED))
        state[block] = torch.where(there, int(State.OBSERVED), cell).to(torch.uint8)
    return state.to(observed.device)


def last_price(observed: Bool[Tensor, "T N"]) -> np.ndarray:
    """The row of each asset's last price, -1 where it has none."""
    there = observed.cpu().numpy()
    return np.where(there.any(0), len(there) - 1 - there[::-1].argmax(0), -1)


def last_listed_row(
    delisted: Mapping[str, str | pd.Timestamp], assets: Sequence[str], dates: pd.DatetimeIndex, price: np.ndarray
) -> np.ndarray:
    """The last row on which each asset is listed, given the delistings that are known; the others live on."""
    listed = len(dates) - 1
    known = {asset: int(dates.searchsorted(pd.Timestamp(date), side="right")) - 1 for asset, date in delisted.items()}
    return np.maximum(np.array([known.get(asset, listed) for asset in assets]), price)
