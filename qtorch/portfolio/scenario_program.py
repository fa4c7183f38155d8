"""The best weights on a forecast's scenarios, under constraints."""

from collections.abc import Mapping
from math import inf
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.portfolio.constraints import Constraints
from qtorch.portfolio.groups import group_rows
from qtorch.portfolio.interior_point import central_parts
from qtorch.portfolio.optimality import Problem
from qtorch.portfolio.projection import project
from qtorch.portfolio.scenario_utility import ScenarioUtility
from qtorch.portfolio.segments import segments
from qtorch.portfolio.universe import reachable, settle

_EXACT = 1e-9  # the gap of exact weights, times the mean size of a return


class ScenarioProgram(nn.Module):
    r"""Scenarios to the weights of the least loss on them: $\ell(X w) + c \sum |w - h|$ under constraints.

    In float64, by an interior-point method whose steps cost as much as the weights' covariance, whatever the loss; see
    `qtorch.portfolio.interior_point`. Unlike `MinimumVariance` it sees the scenarios' tails and means, and unlike
    `ConvexProgram` it needs no other solver.

    The gradient in the scenarios and holdings is that of the implicit function: exact for the mean and variance and for
    growth. Least tail risk is a linear program, whose weights jump from vertex to vertex; for learning, give it a
    `smoothing`, with which the weights move smoothly and the loss is above the least by no more than that.

    Args:
        utility: the loss, such as `TailRisk`, `MeanVariance` or `Growth`.
        constraints: `Constraints`, or their plain values. Kept as these, so that the layer can be saved.
        cost: c, proportional, of what is traded, one way; it needs holdings, and does nothing where there are none.
        smoothing: most by which the loss is above the least, in the unit of the returns; 0 is 1e-9 times the mean size
            of a return.

    Raises:
        ValueError: the cost or the smoothing is negative or not finite.

    References:
        Rockafellar and Uryasev (2000), Optimization of conditional value-at-risk, Journal of Risk 2; Donti, Amos and
        Kolter (2017), Task-based end-to-end model learning in stochastic optimization, NeurIPS, for learning through
        the solution.

    Example:
        >>> from qtorch.portfolio import TailRisk
        >>> _ = torch.manual_seed(0)
        >>> draws = torch.randn(1024, 1, 3) * torch.tensor([0.01, 0.01, 0.03])
        >>> program = ScenarioProgram(TailRisk(0.95), Constraints(upper=0.6))
        >>> program(draws, torch.ones(1, 3, dtype=torch.bool)).round(decimals=1)
        tensor([[0.5000, 0.4000, 0.1000]])
    """

    def __init__(
        self,
        utility: ScenarioUtility,
        constraints: Constraints | Mapping[str, Any] | None = None,
        cost: float = 0.0,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        require(0 <= cost < inf, "cost", cost, "give a rate of at least 0")
        require(0 <= smoothing < inf, "smoothing", smoothing, "give a number of at least 0")
        if not isinstance(constraints, Constraints):
            constraints = Constraints(**(constraints or {}))
        self.utility, self.cost, self.smoothing = utility, cost, smoothing
        self.constraints = constraints.plain()
        self._constraints = constraints

    @property
    def needs_holdings(self) -> bool:
        """Whether there are no weights without holdings, because turnover is limited."""
        return self._constraints.turnover is not None

    def forward(
        self,
        scenarios: Float[Tensor, "S B N"],
        mask: Bool[Tensor, "B N"],
        *,
        holdings: Float[Tensor, "B N"] | None = None,
        tradable: Bool[Tensor, "B N"] | None = None,
        groups: Mapping[str, Int[Tensor, "..."]] | None = None,
    ) -> Float[Tensor, "B N"]:
        """Weights.

        Args:
            scenarios: simple returns of each date, all equally likely; NaN where masked is fine.
            mask: the universe; the weight of other assets is 0 without gradient.
            holdings: as of `project`, as are the other arguments.
            tradable: False where the weight stays that of the holdings, and the others are chosen around it.
            groups: labels of the partitions that the constraints cap.

        Raises:
            ValueError: no weights keep to the constraints, a scenario of the universe is not finite, or the loss has no
                least value under them.
        """
        limits = self._constraints
        inside = torch.where(mask, scenarios, 0.0).double().movedim(0, 1)
        size = _size(inside.detach(), mask)
        X = inside / size[:, None, None]
        # What can't be met is refused by the projection, which knows what to say.
        like = torch.zeros_like(inside[:, 0])
        project(like, limits, mask, holdings=holdings, tradable=tradable, groups=groups)
        _, free, place, held, closed = settle(like, mask, holdings, tradable)
        lower = torch.where(free, -inf if limits.lower is None else limits.lower, place)
        upper = torch.where(free, inf if limits.upper is None else limits.upper, place)
        cost = 0.0 if holdings is None else self.cost
        cut = segments(lower, upper, held, limits.gross is not None, limits.turnover is not None or cost > 0)
        rows, right, equalities = self._rows(cut, lower, upper, place, free, closed, mask, groups)
        problem = Problem(
            X,
            cut.base,
            cut.lower,
            cut.upper,
            cut.trade * (cost / size)[:, None, None],
            torch.where((cut.lower < cut.upper).unsqueeze(1), rows, 0.0),
            right,
            self.utility.risk_aversion * size,
            size,
            self.utility.mean,
            0.0 if self.utility.level is None else 1 - self.utility.level,
            self.utility.growth,
            equalities,
        )
        gap = torch.full_like(size, _EXACT) if self.smoothing == 0 else self.smoothing / size
        w = cut.base + central_parts(problem, gap).sum(1)
        return torch.where(mask, w, 0.0).to(scenarios.dtype)

    def _rows(
        self,
        cut: Any,
        lower: Tensor,
        upper: Tensor,
        place: Tensor,
        free: Tensor,
        closed: Tensor,
        mask: Tensor,
        groups: Mapping[str, Tensor] | None,
    ) -> tuple[Tensor, Tensor, int]:
        """The constraints as rows of the parts `[B R J N]`, what is left of their right sides, and the equalities."""
        limits = self._constraints
        linear, bounds, _ = group_rows(limits.caps, groups, mask, free.shape, free.device)
        J = cut.lower.shape[1]
        used = (linear @ cut.base.unsqueeze(-1)).squeeze(-1)
        rows = [linear.unsqueeze(2).expand(-1, -1, J, -1)]
        right = [used.new_tensor(bounds).expand(used.shape) - used]
        equalities = 0
        if limits.budget is not None:
            most = inf if limits.upper is None else limits.upper
            budget = reachable(torch.full_like(place[:, 0], limits.budget), lower, upper, place, closed, most)
            rows.insert(0, torch.ones_like(cut.lower).unsqueeze(1))
            right.insert(0, (budget - cut.base.sum(-1)).unsqueeze(-1))
            equalities = 1
        for limit, slopes, at_base in (
            (limits.gross, cut.size, cut.size_at_base),
            (limits.turnover, cut.trade, cut.trade_at_base),
        ):
            if limit is not None:
                rows.append(slopes.unsqueeze(1))
                right.append((limit - at_base.sum(-1)).unsqueeze(-1))
        return torch.cat(rows, 1), torch.cat(right, 1), equalities


def _size(scenarios: Tensor, mask: Tensor) -> Tensor:
    """The mean absolute return of the universe, `[B]`; 1 where there is none."""
    size = scenarios.abs().mean(1).sum(-1) / mask.sum(-1).clamp(min=1)
    return torch.where(size > 0, size, 1.0)
