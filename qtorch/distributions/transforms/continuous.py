"""The flow of an ordinary differential equation."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.transforms.bijection import Bijection, promoted

Vectors = Float[Tensor, "... D"]


class Continuous(Bijection):
    """From x at time 1 to y at time 0 along dx/dt = v(t, x), by the solvers of torchdiffeq.

    The ladj is minus the integral of the divergence, sum_p p' (dv/dx) p over some probes p: exact with the D unit
    vectors, Hutchinson's estimate with S vectors of signs divided by sqrt(S). A value has the error of the solver, and
    so has the round trip. torchdiffeq looks at the values of times, so that this compiles with graph breaks alone, and
    is not exported. Under autocast it stays in float32.

    Args:
        velocity: v, of a time (a scalar) and of vectors `[..., D]`, each row by itself.
        probes: `[S, D]`.
        method: a solver's name in torchdiffeq.
        steps: of a solver of fixed steps; None for one that chooses its own.
        tolerance: relative and absolute, of a solver that chooses its steps, for all rows together; 16 eps at least.

    References:
        Chen, Rubanova, Bettencourt and Duvenaud (2018), Neural ordinary differential equations, NeurIPS.
        Grathwohl et al. (2019), FFJORD, ICLR, section 3.
    """

    event_dim = 1

    def __init__(
        self,
        velocity: Callable[[Tensor, Tensor], Tensor],
        probes: Float[Tensor, "S D"],
        method: str = "rk4",
        steps: int | None = 16,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__()
        self.velocity, self.probes = velocity, probes
        self.method, self.steps, self.tolerance = method, steps, tolerance

    def call_and_ladj(self, x: Vectors) -> tuple[Vectors, Float[Tensor, "..."]]:
        """The value y(x) and log |det dy/dx|."""
        return self._integrate(x, 1.0, 0.0)

    def inv_and_ladj(self, y: Vectors) -> tuple[Vectors, Float[Tensor, "..."]]:
        """The x with y(x) = y and log |det dx/dy|."""
        return self._integrate(y, 0.0, 1.0)

    def _integrate(self, x: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        x = promoted(x)
        times = torch.tensor([start, end], dtype=x.dtype, device=x.device)
        tolerance = max(self.tolerance, 16 * torch.finfo(x.dtype).eps)
        # A solver that chooses its steps must end one at the end: its interpolation is of a lower order.
        options = {"step_t": times[1:]} if self.steps is None else {"step_size": 1 / self.steps}
        state = x, x.new_zeros(x.shape[:-1])
        with torch.autocast(x.device.type, enabled=False):  # no step is short enough for the noise of half precision
            values, ladj = _solver()(
                self._rates, state, times, method=self.method, options=options, rtol=tolerance, atol=tolerance
            )
        return values[-1], ladj[-1]

    def _rates(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x = state[0]
        v, pull = torch.func.vjp(lambda x: self.velocity(t, x).to(x.dtype), x)  # type: ignore[misc]
        probes = self.probes.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1), x.shape[-1])
        pulled = torch.func.vmap(pull)(probes.expand(-1, *x.shape))[0]
        return v, (pulled * probes).sum((0, -1))


def _solver() -> Any:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ImportError("Continuous flows need torchdiffeq: pip install 'qtorch-finance[flows]'.") from error
    return odeint
