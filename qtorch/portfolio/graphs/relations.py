"""Graphs of what is known of assets besides their prices: sectors, suppliers, holdings."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from qtorch.errors import ArgumentError
from qtorch.nn.graph import Graph


class Relation(NamedTuple):
    """An edge that is known by name, and for how long.

    Attributes:
        source: the asset that is heard.
        target: the asset that hears it.
        kind: from 0.
        weight: of the edge.
        since: the first date on which it is known, such as that of the report that told it; None for always.
        until: the last date; None for ever.
        mutual: whether the source hears the target as well.
    """

    source: str
    target: str
    kind: int = 0
    weight: float = 1.0
    since: str | None = None
    until: str | None = None
    mutual: bool = True


def related(
    relations: Sequence[Relation], assets: Sequence[str], dates: pd.DatetimeIndex, mask: Bool[Tensor, "R N"]
) -> Graph:
    """The relations that hold at some dates, with their kinds and weights.

    Args:
        relations: those of other assets are left out.
        assets: names of the nodes.
        dates: R of them.
        mask: which assets are alive.

    Raises:
        ValueError: the sizes do not fit, or as of `qtorch.nn.graph.Graph`.

    Example:
        >>> deliver = Relation("TSM", "AAPL", kind=2, since="2020-06-01", mutual=False)
        >>> dates = pd.DatetimeIndex(["2020-05-29", "2020-06-30"])
        >>> related([deliver], ("AAPL", "TSM"), dates, torch.ones(2, 2).bool()).present.flatten(1).tolist()
        [[False, False], [True, False]]
    """
    _check(assets, dates, mask)
    place, N = {asset: n for n, asset in enumerate(assets)}, len(assets)
    known = [each for each in relations if each.source in place and each.target in place]
    known += [each._replace(source=each.target, target=each.source) for each in known if each.mutual]
    ends = np.array([(place[each.source], place[each.target]) for each in known], dtype=np.int64).reshape(-1, 2)
    date, edge = np.nonzero(_valid(pd.DataFrame(known, columns=list(Relation._fields)), dates))
    device = mask.device
    return Graph.from_edges(
        torch.from_numpy((ends[edge] + N * date[:, None]).T.copy()).to(device),
        mask,
        torch.tensor([known[e].weight for e in edge], dtype=torch.float32, device=device),
        torch.tensor([known[e].kind for e in edge], dtype=torch.int64, device=device),
    )


def same_label(
    labels: Mapping[str, str] | pd.DataFrame,
    assets: Sequence[str],
    dates: pd.DatetimeIndex,
    mask: Bool[Tensor, "R N"],
) -> Graph:
    """All assets with the same label, such as a sector, hear from each other with weight 1.

    Args:
        labels: of assets; or a frame with the columns `asset`, `label` and, where labels change, `since` and `until`,
            the first and last date of each, missing for always. Those of other assets are left out.
        assets: names of the nodes; one without a label has no edges.
        dates: R of them.
        mask: which assets are alive.

    Raises:
        ValueError: an asset has two labels at a date, or the sizes do not fit.

    Example:
        >>> sectors, date = {"XOM": "energy", "CVX": "energy", "JPM": "banks"}, pd.DatetimeIndex(["2020-01-31"])
        >>> graph = same_label(sectors, ("CVX", "JPM", "XOM"), date, torch.ones(1, 3).bool())
        >>> graph.neighbours[0].tolist()
        [[2], [1], [0]]
    """
    _check(assets, dates, mask)
    if isinstance(labels, pd.DataFrame):
        frame = labels.reindex(columns=["asset", "label", "since", "until"])
    else:
        frame = pd.DataFrame({"asset": list(labels), "label": list(labels.values()), "since": None, "until": None})
    frame = frame[frame["asset"].isin(assets) & frame["label"].notna()]
    valid = _valid(frame, dates)
    place = pd.Index(assets).get_indexer(pd.Index(frame["asset"]))
    date, row = np.nonzero(valid)
    count = np.zeros(mask.shape, dtype=np.int64)
    np.add.at(count, (date, place[row]), 1)
    if (count > 1).any():
        d, n = np.argwhere(count > 1)[0]
        raise ArgumentError(
            f"{assets[n]} has {count[d, n]} labels on {dates[d]:%Y-%m-%d}; let one end before the next."
        )
    codes = np.full(mask.shape, -1)
    codes[date, place[row]] = pd.factorize(frame["label"])[0][row]
    code = torch.from_numpy(codes).to(mask.device)
    same = torch.logical_and(code[:, :, None] == code[:, None, :], code[:, None, :] >= 0)
    same = torch.logical_and(same, ~torch.eye(len(assets), dtype=torch.bool, device=mask.device))
    return Graph.from_dense(same.float(), mask)


def _check(assets: Sequence[str], dates: pd.DatetimeIndex, mask: Tensor) -> None:
    if tuple(mask.shape) != (len(dates), len(assets)):
        raise ArgumentError(f"mask must be [{len(dates)}, {len(assets)}], of dates and assets, not {list(mask.shape)}.")


def _valid(frame: pd.DataFrame, dates: pd.DatetimeIndex) -> np.ndarray:
    """Which rows of a frame hold on which dates, `[R, rows]`, by its `since` and `until`, both inclusive."""
    date = dates.to_numpy()[:, None]
    since, until = (pd.to_datetime(frame[name]).to_numpy() for name in ("since", "until"))
    return ((since <= date) | np.isnat(since)) & ((date <= until) | np.isnat(until))
