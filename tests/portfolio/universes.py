"""Random universes, and the reference solution of a quadratic program."""

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

from qtorch.portfolio import Constraints, GroupCap

GROUPS = 3


@dataclass
class Universe:
    scores: Tensor
    mask: Tensor
    holdings: Tensor
    tradable: Tensor
    sector: Tensor

    @property
    def given(self) -> dict[str, object]:
        return {"holdings": self.holdings, "tradable": self.tradable, "groups": {"sector": self.sector}}

    @property
    def free(self) -> Tensor:
        return self.mask & self.tradable


def universe(rows: int, assets: int, seed: int, dtype: torch.dtype = torch.float64, scale: float = 0.3) -> Universe:
    """A tenth of the assets masked, a tenth closed, with drifted holdings that may be in masked ones."""
    g = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(rows, assets, generator=g, dtype=torch.float64)
    holdings = torch.randn(rows, assets, generator=g, dtype=torch.float64).softmax(-1)
    mask, tradable = (torch.rand(rows, assets, generator=g) > 0.1 for _ in range(2))
    sector = torch.randint(-1, GROUPS, (rows, assets), generator=g)
    return Universe(scores.to(dtype), mask, holdings.to(dtype), tradable, sector)


CASES = {
    "box": Constraints(upper=0.3),
    "sectors": Constraints(upper=0.4, caps={"sector": GroupCap(0.5, labels=GROUPS)}),
    "turnover": Constraints(turnover=1.0),
    "both": Constraints(upper=0.4, turnover=1.2, caps={"sector": GroupCap(0.5, labels=GROUPS)}),
    "neutral": Constraints(0.0, -0.5, 0.2, gross=1.5),
    "gross at the budget": Constraints(1.0, -0.2, 0.4, gross=1.2),
    "free budget": Constraints(None, -0.2, 0.4, gross=1.4, turnover=1.0),
    "box alone": Constraints(None, -0.2, 0.4),
    "all": Constraints(1.0, -0.2, 0.5, 1.6, 1.5, {"sector": GroupCap((0.6, 0.5, 0.7), -0.1)}),
}


def solved(limits: Constraints, u: Universe, row: int, scores: np.ndarray) -> np.ndarray:
    """By an interior-point method."""
    w, h = cp.Variable(len(scores)), u.holdings[row].numpy()
    fixed = np.where(u.mask[row].numpy(), h, 0.0)
    free = np.nonzero(u.free[row].numpy())[0]
    still = np.nonzero(~u.free[row].numpy())[0]
    meets = [w[still] == fixed[still], w[free] >= limits.lower, w[free] <= limits.upper]
    if limits.budget is not None:
        meets.append(cp.sum(w) == limits.budget)
    if limits.gross is not None:
        meets.append(cp.norm1(w) <= limits.gross)
    if limits.turnover is not None:
        meets.append(cp.norm1(w - h) <= limits.turnover)
    for cap in limits.caps.values():
        for label in range(GROUPS):
            inside = ((u.sector[row] == label) & u.mask[row]).numpy().astype(float)
            for sign, limit in ((1, cap.upper), (-1, cap.lower)):
                if limit is not None:
                    meets.append(sign * (inside @ w) <= sign * (limit[label] if isinstance(limit, tuple) else limit))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(w - scores)), meets)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return w.value


def violations(w: Tensor, limits: Constraints, u: Universe) -> dict[str, float]:
    """By how much weights miss each constraint at most."""
    w, h = w.double(), u.holdings.double()
    place = torch.where(u.mask, h, 0.0)
    missed = {
        "fixed": (w - place)[~u.free].abs().amax(),
        "lower": (limits.lower - w)[u.free].amax(),
        "upper": (w - limits.upper)[u.free].amax(),
    }
    if limits.budget is not None:
        missed["budget"] = (w.sum(-1) - limits.budget).abs().amax()
    if limits.gross is not None:
        missed["gross"] = (w.abs().sum(-1) - limits.gross).amax()
    if limits.turnover is not None:
        missed["turnover"] = ((w - h).abs().sum(-1) - limits.turnover).amax()
    for cap in limits.caps.values():
        for label in range(GROUPS):
            sums = torch.where(u.sector == label, w, 0.0).sum(-1)
            for name, sign, limit in (("most", 1, cap.upper), ("least", -1, cap.lower)):
                if limit is not None:
                    value = limit[label] if isinstance(limit, tuple) else limit
                    missed[f"{name} {label}"] = (sign * (sums - value)).amax()
    return {name: value.item() for name, value in missed.items()}
