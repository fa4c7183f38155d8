"""Weights by any convex program, through cvxpylayers."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qtorch.errors import ArgumentError
from qtorch.portfolio.universe import settle

# Of the weights, the scores and the holdings, cvxpy variables and parameters: the objective, and the constraints.
Program = Callable[[Any, Any, Any], tuple[Any, list[Any]]]


class ConvexProgram(nn.Module):
    """Scores to the solution of a convex program, for constraints that `Projected` has not; needs ``qtorch[convex]``.

    That masked weights are 0 and closed ones stay is added to the program, and holds exactly. It is slow (tens of
    milliseconds a row) and as right as its solver: weights are off by some 1e-4 with the default, 1e-6 with Clarabel.

    Args:
        program: ``program(weights, scores, holdings)`` returns a cvxpy objective and a list of constraints by cvxpy's
            rules of disciplined parametrised programming; or its import path, ``"mydesk.programs:low_risk"``, by which
            the layer can be saved.
        assets: N.
        solver_args: for cvxpylayers, such as ``{"solve_method": "Clarabel"}``, which is more exact.

    Raises:
        ImportError: cvxpylayers is missing.
        ValueError: the import path has no colon.
    """

    def __init__(self, program: Program | str, assets: int, solver_args: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.program, self.assets, self.solver_args = program, assets, dict(solver_args or {})
        try:
            layers, cp = (importlib.import_module(name) for name in ("cvxpylayers.torch", "cvxpy"))
        except ImportError as error:
            raise ImportError("ConvexProgram needs cvxpylayers: pip install 'qtorch-finance[convex]'.") from error
        w, scores, holdings, place = (
            cp.Variable(assets),
            cp.Parameter(assets),
            cp.Parameter(assets),
            cp.Parameter(assets),
        )
        fixed = cp.Parameter(assets, nonneg=True)
        objective, constraints = _loaded(program)(w, scores, holdings)
        problem = cp.Problem(objective, [*constraints, cp.multiply(fixed, w) == place])
        used = {parameter.id for parameter in problem.parameters()}
        self._takes = [parameter.id in used for parameter in (scores, holdings, fixed, place)]
        taken = [p for p, takes in zip((scores, holdings, fixed, place), self._takes, strict=True) if takes]
        self._layer = layers.CvxpyLayer(problem, parameters=taken, variables=[w])

    def forward(
        self,
        scores: Float[Tensor, "*batch N"],
        mask: Bool[Tensor, "*#batch N"],
        *,
        holdings: Float[Tensor, "*#batch N"] | None = None,
        tradable: Bool[Tensor, "*#batch N"] | None = None,
        groups: Mapping[str, Int[Tensor, "..."]] | None = None,
    ) -> Float[Tensor, "*batch N"]:
        """Weights; the arguments are those of `project`, but `groups`, which the program itself must know.

        Raises:
            ValueError: the number of assets is another.
            diffcp.SolverError: the program has no solution.
        """
        if scores.shape[-1] != self.assets:
            raise ArgumentError(f"the program is of {self.assets} assets, the scores are of {scores.shape[-1]}.")
        z, free, place, held, _ = settle(scores, mask, holdings, tradable)
        values = (z, held, (~free).double(), place)
        inputs = [x for x, takes in zip(values, self._takes, strict=True) if takes]
        (w,) = self._layer(*inputs, solver_args=self.solver_args)
        return torch.where(free, w, place).reshape(scores.shape).to(scores.dtype)


def _loaded(program: Program | str) -> Program:
    if not isinstance(program, str):
        return program
    module, colon, name = program.partition(":")
    if not colon:
        raise ArgumentError(f"program={program!r}: an import path such as 'mydesk.programs:low_risk' is needed.")
    return getattr(importlib.import_module(module), name)
