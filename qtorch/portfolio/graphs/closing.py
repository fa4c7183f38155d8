"""Which markets close after which others."""

import torch
from jaxtyping import Bool
from torch import Tensor

from qtorch.data import Panel

SESSIONS = 20  # the first that two exchanges have in common tell which closes first
_TOGETHER = 60  # minutes between closes that count as one instant


def closes_later(panel: Panel, last: int) -> Bool[Tensor, "N N"]:
    """Whether the asset of a row closes later than that of a column, by more than an hour, on the panel's rows.

    It is the median of the first 20 rows on which both exchanges have a session, so that neither daylight saving nor
    an early close changes it, nor what comes later.

    Args:
        panel: the market.
        last: the last row that may be read.
    """
    X = len(panel.exchange_codes)
    later = torch.zeros(X, X, dtype=torch.bool, device=panel.state.device)
    for a in range(X):
        for b in range(a):
            common = torch.logical_and(
                panel.exchange_is_session[: last + 1, a], panel.exchange_is_session[: last + 1, b]
            )
            rows = common.nonzero().squeeze(1)[:SESSIONS]
            if len(rows):
                gap = (panel.exchange_close[rows, a] - panel.exchange_close[rows, b]).median()
                later[a, b], later[b, a] = gap > _TOGETHER, gap < -_TOGETHER
    index = torch.as_tensor(panel.exchange_index, device=later.device)
    return later[index][:, index]
