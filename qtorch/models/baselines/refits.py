"""When a model is estimated anew in the course of a request."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from qtorch.models.baselines.request import Request


@dataclass(frozen=True, eq=False)
class Refit:
    """A refit and the dates that use it.

    Attributes:
        dates: positions `E` among the dates of the request, in order of their rows.
        known: the number of each asset's last own return that the refit knows; -1 where it has no forecast at any of
            the dates.
        last: the same at each of the dates; 0 where there is no forecast.
        valid: where there is a forecast.
    """

    dates: Int64[Tensor, " E"]
    known: Int64[Tensor, " N"]
    last: Int64[Tensor, "E N"]
    valid: Bool[Tensor, "E N"]


def refits(request: Request, every: int) -> list[Refit]:
    """The refits of a request: at its first date, and at each first date that is `every` rows after the last refit.

    An asset that has no forecast at the date of a refit, and has one at a later date of its, is estimated from what is
    known at the first such date.
    """
    order = request.rows.argsort(stable=True)
    rows = request.rows[order].tolist()
    begins, anchor = [], None
    for position, row in enumerate(rows):
        if anchor is None or row - anchor >= every:
            begins.append(position)
            anchor = row
    found = []
    for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True):
        dates = order[begin:end]
        last, valid = request.last[dates], request.valid[dates]
        first = valid.to(torch.uint8).argmax(0, keepdim=True)
        known = torch.where(valid.any(0), last.gather(0, first).squeeze(0), -1)
        found.append(Refit(dates, known, last, valid))
    return found
