"""Caps of groups as rows of a linear constraint."""

from collections.abc import Mapping, Sequence
from math import inf

import torch
from jaxtyping import Int64
from torch import Tensor

from qtorch.data.errors import DataError, listing
from qtorch.errors import ArgumentError
from qtorch.portfolio.constraints import GroupCap, Limit


def numbered(groups: Mapping[str, Mapping[str, str | None]], assets: Sequence[str]) -> dict[str, Int64[Tensor, " N"]]:
    """Labels of assets as layers take them: numbers from 0 in the order of the labels, -1 for None.

    Args:
        groups: the label of each asset, or None for none, by the name of a partition; other assets may be named too.
        assets: N of them.

    Raises:
        DataError: an asset is not named.

    Example:
        >>> numbered({"sector": {"XOM": "energy", "KO": "staples", "CVX": "energy"}}, ["KO", "CVX"])
        {'sector': tensor([1, 0])}
    """
    result = {}
    for name, given in groups.items():
        if missing := [asset for asset in assets if asset not in given]:
            raise DataError(f"groups of {name!r}: no label for {listing(missing)}. Give one, or None for none.")
        number = {label: n for n, label in enumerate(sorted({x for x in given.values() if x is not None}))}
        labels = [given[asset] for asset in assets]
        result[name] = torch.tensor([-1 if label is None else number[label] for label in labels])
    return result


def group_rows(
    caps: Mapping[str, GroupCap],
    groups: Mapping[str, Tensor] | None,
    mask: Tensor | None,
    shape: torch.Size,
    device: torch.device,
) -> tuple[Tensor, list[float], list[str]]:
    """Coefficients `[B R N]` in float64, their R upper bounds, and names; a lower bound is a negative row's upper one.

    Raises:
        ValueError: the labels of a partition are missing, below -1 or beyond its count.
    """
    rows, bounds, names = [torch.zeros((*shape[:-1], 0, shape[-1]), dtype=torch.float64, device=device)], [], []
    for name, cap in caps.items():
        if groups is None or name not in groups:
            raise ArgumentError(f"the caps of {name!r} need its labels: pass groups={{{name!r}: labels}}.")
        labels = groups[name].expand(shape)
        if mask is not None:
            labels = torch.where(mask, labels, -1)
        count = _count(name, cap, labels)
        each = torch.arange(count, device=device).unsqueeze(-1)
        member = (labels.unsqueeze(-2) == each).double()
        for sign, limit, which in ((1.0, cap.upper, "most"), (-1.0, cap.lower, "least")):
            if limit is not None:
                rows.append(sign * member)
                bounds += [sign * value for value in _per_label(limit, count)]
                names += [f"the {which} of group {label} of {name}" for label in range(count)]
    every = torch.cat(rows, -2)
    return every.flatten(0, -3) if len(shape) > 1 else every.unsqueeze(0), bounds, names


def _count(name: str, cap: GroupCap, labels: Tensor) -> int:
    if torch.compiler.is_compiling():
        if cap.labels is None:
            raise ArgumentError(f"in compiled code the caps of {name!r} need their count: GroupCap(..., labels=11).")
        return cap.labels
    low, high = (int(labels.min()), int(labels.max())) if labels.numel() else (-1, -1)
    count = high + 1 if cap.labels is None else cap.labels
    if low < -1 or high >= count:
        raise ArgumentError(f"labels of {name!r} run from {low} to {high}: they must be from -1 (none) to {count - 1}.")
    return count


def _per_label(limit: Limit, count: int) -> Sequence[float]:
    return limit if isinstance(limit, Sequence) else [inf if limit is None else float(limit)] * count
