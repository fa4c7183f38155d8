"""What no portfolio can meet, in words: which row, which constraint, and what to change."""

import torch
from torch import Tensor

from qtorch.errors import BriefInNotebooks


class RowError(BriefInNotebooks, ValueError):
    """A row of a batch that no weights can be made of.

    Attributes:
        row: of the batch.
        asset: its column, where it is that of one asset.
        what: is wrong, and what to do.
    """

    def __init__(self, what: str, row: int, asset: int | None = None) -> None:
        super().__init__(f"row {row}{'' if asset is None else f', asset {asset}'}: {what}")
        self.what, self.row, self.asset = what, row, asset


_SLACK = 1e-9  # by which bounds may miss a constraint: they come from sums of rounded weights


def check_bounds(lower: Tensor, upper: Tensor) -> None:
    """Refuses bounds `[B N]` that are no numbers or that cross.

    Raises:
        RowError: naming the first row and asset.
    """
    wrong = ~(lower <= upper)
    if wrong.any():
        row, asset = wrong.nonzero()[0].tolist()
        raise RowError(
            f"lower={lower[row, asset].item():g} is not at most upper={upper[row, asset].item():g}: give bounds that "
            "are numbers and do not cross.",
            row,
            asset,
        )


def check_budget(lower: Tensor, upper: Tensor, budget: Tensor) -> None:
    """Refuses rows whose bounds `[B N]` cannot add up to the budget `[B]`; a row without a free asset has no choice.

    Raises:
        RowError: naming the first row.
    """
    least, most = lower.sum(-1), upper.sum(-1)
    slack = _SLACK * (1 + budget.abs())
    low, high = most < budget - slack, least > budget + slack
    wrong = (low | high | budget.isnan()) & (lower < upper).any(-1)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        free = (lower[row] < upper[row]).sum().item()
        if low[row]:
            reach, remedy = f"at most {most[row].item():g}", "raise upper, lower the budget or open more assets"
        else:
            reach, remedy = f"at least {least[row].item():g}", "lower `lower`, raise the budget or open more assets"
        raise RowError(
            f"{free} assets that may change and the fixed weights add up to {reach}, but the budget is "
            f"{budget[row].item():g}: {remedy}.",
            row,
        )


def check_limits(
    lower: Tensor, upper: Tensor, holdings: Tensor, rows: Tensor, bounds: Tensor, first: int, names: list[str]
) -> None:
    """Refuses rows whose box cannot meet one of the inequalities, each taken alone.

    Args:
        lower: `[B N]`.
        upper: `[B N]`.
        holdings: `[B N]`.
        rows: coefficients of the linear constraints `[B R N]`.
        bounds: right-hand sides `[B R + 2]`: of the linear ones, the gross exposure's and the turnover's.
        first: index of the first inequality.
        names: of the R + 2 constraints.

    Raises:
        RowError: naming the first row and constraint.
    """
    linear = torch.where(rows > 0, rows * lower[:, None], 0.0) + torch.where(rows < 0, rows * upper[:, None], 0.0)
    gross = torch.maximum(lower, -upper).clamp(min=0).sum(-1)
    turnover = torch.maximum(lower - holdings, holdings - upper).clamp(min=0).sum(-1)
    least = torch.cat((linear.sum(-1), gross[:, None], turnover[:, None]), -1)
    wrong = (least > bounds + _SLACK * (1 + bounds.abs())) & (lower < upper).any(-1, keepdim=True)
    wrong[:, :first] = False
    if wrong.any():
        row, which = wrong.nonzero()[0].tolist()
        raise RowError(
            f"{names[which]} is {bounds[row, which].item():g}, but the fixed weights and the bounds of the others "
            f"bring it to at least {least[row, which].item():g}: raise it, or widen lower and upper.",
            row,
        )
