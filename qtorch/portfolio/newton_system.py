"""One Newton system of the interior-point method, of the size of the weights and rows alone."""

from typing import NamedTuple

import torch
from torch import Tensor

from qtorch.portfolio.optimality import Flags, Pairs, Point, Problem, residuals_of, slacks_of, whole

_TINY = 1e-14  # curvature of parts that nothing bounds


class NewtonSystem(NamedTuple):
    """A factorised Newton system and what is eliminated from it.

    The parts of a weight answer to its own pull through `share`, their curvature's inverse over its sum, and to each
    other through `between`, which is 1 / (d_j d_k sum 1/d) with d the curvature of their bounds: so nothing is divided
    by a curvature that vanishes.
    """

    lu: Tensor
    pivots: Tensor
    scale: Tensor
    D: Tensor
    share: Tensor
    between: Tensor

    @staticmethod
    def of(problem: Problem, point: Point, flags: Flags) -> "NewtonSystem":
        """At a point, factorised."""
        X, B, N = problem.X, len(problem.X), problem.X.shape[2]
        below, above = slacks_of(problem, point, flags)
        d = (point.low / below + point.high / above).clamp(min=_TINY)
        inverse = torch.where(flags.free, 1 / d, 0.0)
        total = inverse.sum(1)
        some = flags.free.any(1)
        share = torch.where(some.unsqueeze(1), inverse / total.clamp(min=1e-300).unsqueeze(1), 0.0)
        between = inverse.unsqueeze(2) * share.unsqueeze(1)
        R = problem.right.shape[1]
        M = X.new_zeros(B, N + 1 + R, N + 1 + R)
        D = torch.zeros_like(point.y)
        H = problem.curvature[:, None, None] * _covariance(X)
        if problem.tail:
            D = 1 / (point.s / point.y + point.u / (whole(problem) - point.y))
            M[:, N, N] = D.sum(-1)
            M[:, :N, N] = M[:, N, :N] = torch.where(some, (X.mT @ D.unsqueeze(-1)).squeeze(-1), 0.0)
        else:
            M[:, N, N] = 1.0
        if problem.growth:
            D = point.y / point.s
        if problem.tail or problem.growth:
            H = H + X.mT @ (D.unsqueeze(-1) * X)
        H = torch.where(some.unsqueeze(-1) & some.unsqueeze(-2), H, 0.0)
        M[:, :N, :N] = H + torch.diag_embed(torch.where(some, 1 / total.clamp(min=1e-300), 1.0))
        mean_rows = (problem.rows * share.unsqueeze(1)).sum(2)
        M[:, N + 1 :, :N], M[:, :N, N + 1 :] = mean_rows, mean_rows.mT
        corner = torch.diag_embed(
            torch.where(flags.limits, point.slack / point.prices, torch.where(flags.rows, 0.0, 1.0))
        )
        for j in range(problem.lower.shape[1]):
            for k in range(j):
                gap = problem.rows[:, :, j] - problem.rows[:, :, k]
                corner = corner + (gap * between[:, None, j, k]) @ gap.mT
        M[:, N + 1 :, N + 1 :] = -corner
        size = M.diagonal(dim1=-2, dim2=-1).abs()
        scale = torch.where(size > 0, size.clamp(min=1e-30).rsqrt(), 1.0)
        lu, pivots, _ = torch.linalg.lu_factor_ex(scale.unsqueeze(-1) * M * scale.unsqueeze(-2))
        return NewtonSystem(lu, pivots, scale, D, share, between)

    def direction(self, problem: Problem, point: Point, flags: Flags, goal: Pairs) -> Point:
        """To where the products are the goal, by Newton's linearisation; differentiable in the problem."""
        X, N = problem.X, problem.X.shape[-1]
        below, above = slacks_of(problem, point, flags)
        left = residuals_of(problem, point, flags)
        pull = -left.x + (goal.low / below - point.low) - (goal.high / above - point.high)
        pull = torch.where(flags.free, pull, 0.0)
        right_w = (self.share * pull).sum(1)
        right_v = -left.v
        E = torch.zeros_like(point.y)
        if problem.tail or problem.growth:
            E = goal.s / point.y - point.s + left.s
            if problem.tail:
                E = E - (goal.u / (whole(problem) - point.y) - point.u)
                right_v = right_v + (self.D * E).sum(-1, keepdim=True)
            right_w = right_w + torch.where(flags.free.any(1), (X.mT @ (self.D * E).unsqueeze(-1)).squeeze(-1), 0.0)
        right_rows = torch.where(flags.limits, -left.prices - (goal.rows / point.prices - point.slack), -left.prices)
        J = problem.lower.shape[1]
        for j in range(J):
            for k in range(j):
                gap = problem.rows[:, :, j] - problem.rows[:, :, k]
                moved = self.between[:, j, k] * (pull[:, j] - pull[:, k])
                right_rows = right_rows - (gap @ moved.unsqueeze(-1)).squeeze(-1)
        right = self.scale * torch.cat((right_w, right_v, right_rows), -1)
        found = self.scale * torch.linalg.lu_solve(self.lu, self.pivots, right.unsqueeze(-1)).squeeze(-1)
        dw, dv, dprices = found[:, :N], found[:, N : N + 1], found[:, N + 1 :]
        net = pull - (problem.rows * dprices[:, :, None, None]).sum(1)
        spread = (self.between * (net.unsqueeze(2) - net.unsqueeze(1))).sum(2)
        dx = self.share * dw.unsqueeze(1) + spread
        dy, ds, du = (torch.zeros_like(point.y) for _ in range(3))
        if problem.tail or problem.growth:
            dy = self.D * (E - (X @ dw.unsqueeze(-1)).squeeze(-1) - (dv if problem.tail else 0.0))
            ds = goal.s / point.y - point.s - point.s / point.y * dy
        if problem.tail:
            q = whole(problem) - point.y
            du = goal.u / q - point.u + point.u / q * dy
        dslack = torch.where(
            flags.limits, goal.rows / point.prices - point.slack - point.slack / point.prices * dprices, 0.0
        )
        dlow = goal.low / below - point.low - point.low / below * dx
        dhigh = goal.high / above - point.high + point.high / above * dx
        return Point(dx, dv, ds, du, dy, dprices, dslack, dlow, dhigh)


def _covariance(X: Tensor) -> Tensor:
    centred = X - X.mean(1, keepdim=True)
    return centred.mT @ centred / max(X.shape[1] - 1, 1)
